package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"berth/build/dockerfile"
	"berth/daemon/buildkit"
	"berth/engine/builds"
	"berth/fault"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// buildRoutes serve /build.
func buildRoutes(s *builds.Service, k *buildkit.Server) []route {
	b := builder{s, kit{k}, &answers{}}
	return append([]route{{"POST", "/build", b.build}, {"POST", "/build/answers/{id}", b.answer}}, kitRoutes(k)...)
}

type builder struct {
	engine  *builds.Service
	kit     kit
	answers *answers
}

// build takes a context as the body and streams what happens, as the classic builder does.
func (b builder) build(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Get("version") == "2" {
		return b.kit.build(w, r)
	}
	if flag(q, "asks") {
		return b.asking(w, r, q)
	}
	o, err := buildOptions(q, versionOf(r))
	if err != nil {
		return err
	}
	o.Auth = credentials(r)
	defer upload(w, r)()
	out := newLines(w)
	say := func(text string) { out.write(jsonstream.Message{Stream: text}) }
	classic := &builds.Classic{Out: say, Quiet: flag(q, "q")}
	img, err := b.engine.Build(r.Context(), o, r.Body, builds.Teller{
		Read: classic.Read, Plan: classic.Plan, Event: classic.Event, Fail: classic.Fail, Pull: progressTo(out, versionOf(r)),
		Warn: func(w dockerfile.Warning) {
			switch {
			case classic.Quiet:
			case w.Line == 0:
				say(fmt.Sprintf("[Warning] %s\n", w.Detail))
			default:
				say(fmt.Sprintf("[Warning] %s: %s (line %d)\n", w.Rule, w.Detail, w.Line))
			}
		},
		Work: func(w builds.Work) {
			if name, is := strings.CutPrefix(w.Name, builds.Importing); is && w.Err != nil && !classic.Quiet {
				say(fmt.Sprintf("[Warning] nothing is taken from the cache %s: %v\n", name, w.Err))
			}
		},
	})
	if err != nil {
		return out.fail(err)
	}
	if classic.Quiet {
		say(img.ID.String() + "\n")
		return nil
	}
	id, err := json.Marshal(map[string]string{"ID": img.ID.String()})
	if err != nil {
		return err
	}
	aux := json.RawMessage(id)
	out.write(jsonstream.Message{Aux: &aux})
	say("Successfully built " + img.ID.Encoded()[:12] + "\n")
	for _, t := range o.Tags {
		say("Successfully tagged " + fullTag(t) + "\n")
	}
	return nil
}

// buildPlatforms reads a list of platforms, divided by commas.
func buildPlatforms(text string) (list []ocispec.Platform, err error) {
	for one := range strings.SplitSeq(text, ",") {
		p, err := parsePlatform(one)
		if err != nil {
			return nil, err
		}
		if p != nil {
			list = append(list, *p)
		}
	}
	return list, nil
}

// buildOptions reads the query.
func buildOptions(q url.Values, v apiVersion) (o builds.Options, err error) {
	o = builds.Options{Dockerfile: q.Get("dockerfile"), Remote: q.Get("remote"), Tags: q["t"], Target: q.Get("target"), Network: q.Get("networkmode"), Allow: q["allow"], NoCache: flag(q, "nocache"), NoCacheFor: q["nocachefilter"], Pull: flag(q, "pull"), Squash: flag(q, "squash")}
	if o.Platforms, err = buildPlatforms(q.Get("platform")); err != nil {
		return o, err
	}
	if i := q.Get("isolation"); i != "" && i != "default" && i != "process" {
		return o, fault.New(fault.Invalid, "unsupported isolation: %q", i)
	}
	if text := q.Get("version"); text != "" && text != "1" {
		return o, fault.New(fault.Invalid, "invalid version: %s", text)
	}
	args := map[string]*string{}
	for name, to := range map[string]any{"buildargs": &args, "labels": &o.Labels, "ulimits": &o.Settings.Ulimits} {
		if text := q.Get(name); text != "" {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				return o, fault.New(fault.Invalid, "%s: %w", name, err)
			}
		}
	}
	if slices.Contains(o.Settings.Ulimits, nil) {
		return o, fault.New(fault.Invalid, "ulimits: null is no ulimit")
	}
	for name, to := range map[string]*[]builds.CacheSpec{"cachefrom": &o.CacheFrom, "cacheto": &o.CacheTo} {
		var texts []string
		if text := q.Get(name); text != "" {
			if err := json.Unmarshal([]byte(text), &texts); err != nil {
				return o, fault.New(fault.Invalid, "%s: %w", name, err)
			}
		}
		prefix := map[string]string{"cachefrom": builds.CacheFromName, "cacheto": builds.CacheToName}[name]
		if *to, err = builds.ParseCacheSpecs(prefix, texts); err != nil {
			return o, err
		}
	}
	o.Args = map[string]string{}
	for k, v := range args {
		if v != nil {
			o.Args[k] = *v
		}
	}
	s := &o.Settings
	s.Hosts, s.CPUSet, s.CPUSetMems, s.CgroupParent, s.SecurityOpt = q["extrahosts"], q.Get("cpusetcpus"), q.Get("cpusetmems"), q.Get("cgroupparent"), q["securityopt"]
	for name, to := range map[string]*int64{"memory": &s.Memory, "memswap": &s.MemorySwap, "cpushares": &s.CPUShares, "cpuperiod": &s.CPUPeriod, "cpuquota": &s.CPUQuota, "shmsize": &s.ShmSize} {
		if text := q.Get(name); text != "" {
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil {
				return o, fault.New(fault.Invalid, "%s: %w", name, err)
			}
		}
	}
	return o, nil
}

// fullTag is a name with its tag, as it is shown.
func fullTag(name string) string {
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		return reference.FamiliarString(reference.TagNameOnly(named))
	}
	return name
}
