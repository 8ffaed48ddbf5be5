package build

import (
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"berth/build/protocol"
	"berth/cli/session"
	"berth/fault"

	"github.com/spf13/pflag"
)

// outputs are the options that say what comes of a build.
type outputs struct {
	wanted, annotations, attests     []string
	provenance, sbom                 string
	push, load, squash               bool
	metadata                         string
	isolation                        string
	compress, removes, alwaysRemoves bool

	list []output

	mu      sync.Mutex
	written []written // files that came
}

// output is one that was asked for, and where it goes here.
type output struct {
	kind       string
	attributes map[string]string
	dest       string // a file or a directory, "-" is standard output; "": it stays with the engine
}

func (o *outputs) flags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&o.wanted, "output", "o", nil, "Output destination (format: \"type=local,dest=path\")")
	fs.StringArrayVar(&o.annotations, "annotation", nil, "Add annotation to the image (format: \"[manifest|index[PLATFORM]:]KEY=VALUE\")")
	fs.StringArrayVar(&o.attests, "attest", nil, "Attestation parameters (format: \"type=provenance,mode=max\")")
	fs.StringVar(&o.provenance, "provenance", "", "Shorthand for \"--attest=type=provenance\"")
	fs.StringVar(&o.sbom, "sbom", "", "Shorthand for \"--attest=type=sbom\"")
	fs.Lookup("provenance").NoOptDefVal, fs.Lookup("sbom").NoOptDefVal = "true", "true"
	fs.BoolVar(&o.push, "push", false, "Send the image to its registry: shorthand for \"--output=type=registry\"")
	fs.BoolVar(&o.load, "load", false, "Keep the image: shorthand for \"--output=type=docker\"")
	fs.BoolVar(&o.squash, "squash", false, "Squash newly built layers into a single new layer")
	fs.StringVar(&o.metadata, "metadata-file", "", "Write build result metadata to a file")
	fs.StringVar(&o.isolation, "isolation", "", "Container isolation technology")
	fs.BoolVar(&o.compress, "compress", false, "Compress the build context using gzip (only what changed is sent anyway)")
	fs.BoolVar(&o.removes, "rm", true, "Remove intermediate containers after a successful build (there are none)")
	fs.BoolVar(&o.alwaysRemoves, "force-rm", false, "Always remove intermediate containers (there are none)")
}

// apply completes what the daemon is asked.
func (o *outputs) apply(r *protocol.Request, q url.Values, tags []string) (err error) {
	if err := o.older(q); err != nil {
		return err
	}
	o.list = nil
	for _, text := range o.wanted {
		one, err := parseOutput(text)
		if err != nil {
			return err
		}
		o.list = append(o.list, one)
	}
	if err := o.shorthands(); err != nil {
		return err
	}
	for _, one := range o.list {
		if imaged(one.kind) && one.attributes["name"] == "" && len(tags) > 0 {
			one.attributes["name"] = strings.Join(tags, ",")
		}
	}
	if err := o.annotate(); err != nil {
		return err
	}
	for _, one := range o.list {
		r.Outputs = append(r.Outputs, protocol.Output{Type: one.kind, Attributes: one.attributes})
	}
	r.Attest, err = o.attested()
	return err
}

// older applies what clients of the classic builder can say, too.
func (o *outputs) older(q url.Values) error {
	switch o.isolation {
	case "", "default", "process":
	default:
		return fmt.Errorf("invalid isolation (%s): %q is only supported on Windows", o.isolation, o.isolation)
	}
	if o.squash {
		q.Set("squash", "1")
	}
	return nil
}

// none refuses what a daemon that can't ask back has no way to give: it makes an image and nothing else.
func (o *outputs) none() error {
	off := func(text string) bool { // as it is anyhow
		on, err := strconv.ParseBool(text)
		return text == "" || err == nil && !on
	}
	for _, one := range []struct {
		name string
		has  bool
	}{
		{"--output", len(o.wanted) > 0}, {"--push", o.push}, {"--annotation", len(o.annotations) > 0}, {"--attest", len(o.attests) > 0},
		{"--provenance", !off(o.provenance)}, {"--sbom", !off(o.sbom)}, {"--metadata-file", o.metadata != ""},
	} {
		if one.has {
			return fault.New(fault.Unsupported, "%s: the classic builder has no such thing: unset DOCKER_BUILDKIT, or build with berth's own daemon", one.name)
		}
	}
	return nil
}

// classic is apply for a daemon that can't ask back.
func (o *outputs) classic(q url.Values) error {
	if !o.removes {
		q.Set("rm", "0")
	}
	if o.alwaysRemoves {
		q.Set("forcerm", "1")
	}
	return o.older(q)
}

// imaged tells an output that is an image.
func imaged(kind string) bool {
	return slices.Contains([]string{"image", "registry", "docker", "oci"}, kind)
}

// shorthands applies --push and --load, and what is meant without any output.
func (o *outputs) shorthands() error {
	if len(o.list) == 0 {
		o.list = []output{{kind: "image", attributes: map[string]string{}}}
	} else if o.load && !slices.ContainsFunc(o.list, func(one output) bool { return one.dest == "" && imaged(one.kind) }) {
		o.list = append(o.list, output{kind: "image", attributes: map[string]string{}})
	}
	if !o.push {
		return nil
	}
	pushed := false
	for _, one := range o.list {
		if one.kind == "image" || one.kind == "registry" {
			one.attributes["push"], pushed = "true", true
		}
	}
	if !pushed {
		return fmt.Errorf("push and %q output can't be used together: add --output type=image", o.list[0].kind)
	}
	return nil
}

// parseOutput reads what -o says.
func parseOutput(text string) (one output, err error) {
	one.attributes = map[string]string{}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return one, fmt.Errorf("invalid output %q: %w", text, err)
	}
	if len(fields) == 1 && fields[0] == text && !strings.HasPrefix(text, "type=") {
		one.kind, one.dest = "local", text
		if text == "-" {
			one.kind = "tar"
		}
		return one, nil
	}
	for _, f := range fields {
		k, v, given := strings.Cut(f, "=")
		if !given {
			return one, fmt.Errorf("invalid value %s: an output is described by KEY=VALUE, divided by commas", f)
		}
		switch k = strings.ToLower(strings.TrimSpace(k)); k {
		case "type":
			one.kind = v
		case "dest":
			one.dest = v
		default:
			one.attributes[k] = v
		}
	}
	switch one.kind {
	case "":
		return one, errors.New("type is required for output: such as type=local,dest=PATH")
	case "local":
		if one.dest == "" {
			return one, errors.New("dest is required for local output: name a directory by dest=PATH")
		}
	case "tar", "oci":
		if one.dest == "" {
			one.dest = "-"
		}
	case "docker":
		if one.dest == "" { // as an image of the engine's
			one.kind = "image"
		}
	default:
		if one.dest != "" {
			return one, fmt.Errorf("dest cannot be specified for %s output", one.kind)
		}
	}
	return one, nil
}

// annotate gives the images their annotations.
func (o *outputs) annotate() error {
	if len(o.annotations) == 0 {
		return nil
	}
	all, err := parseAnnotations(o.annotations)
	if err != nil {
		return err
	}
	some := false
	for _, one := range o.list {
		if imaged(one.kind) {
			maps.Copy(one.attributes, all)
			some = true
		}
	}
	if !some {
		return errors.New("annotations belong to images: add --output type=image or type=oci")
	}
	return nil
}

// parseAnnotations makes options of outputs of "index,manifest[PLATFORM]:KEY=VALUE".
func parseAnnotations(list []string) (map[string]string, error) {
	all := map[string]string{}
	for _, text := range list {
		name, value, given := strings.Cut(text, "=")
		if !given || name == "" {
			return nil, fmt.Errorf("invalid annotation %q, expected key=value", text)
		}
		places, key, typed := strings.Cut(name, ":")
		if !typed {
			places, key = "manifest", name
		}
		for p := range strings.SplitSeq(places, ",") {
			kind, _, _ := strings.Cut(p, "[")
			if !slices.Contains([]string{"manifest", "manifest-descriptor", "index", "index-descriptor"}, kind) {
				return nil, fmt.Errorf("invalid annotation %q: unknown annotation type %q: there are manifest, manifest-descriptor, index and index-descriptor", text, kind)
			}
			all["annotation-"+p+"."+key] = value
		}
	}
	return all, nil
}

// attested are the attestations that are wanted, by kind.
func (o *outputs) attested() (map[string]string, error) {
	all := map[string]string{}
	for _, text := range o.attests {
		fields, err := csv.NewReader(strings.NewReader(text)).Read()
		if err != nil {
			return nil, fmt.Errorf("invalid attestation %q: %w", text, err)
		}
		at := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "type=") })
		if at < 0 {
			return nil, fmt.Errorf("invalid attestation %q: it has no type: such as type=provenance,mode=max", text)
		}
		kind := strings.TrimPrefix(fields[at], "type=")
		all[kind] = strings.Join(slices.Delete(fields, at, at+1), ",")
	}
	for kind, text := range map[string]string{"provenance": o.provenance, "sbom": o.sbom} {
		if text == "" {
			continue
		}
		all[kind] = text
		if on, err := strconv.ParseBool(text); err == nil && !on {
			delete(all, kind)
		}
	}
	return all, nil
}

// finish puts what came of a build that succeeded in its place, and writes down what it gave. id is the file for the image's ID; "": none.
func (o *outputs) finish(result map[string]string, id string) error {
	if err := o.place(); err != nil {
		return err
	}
	if id != "" {
		if err := os.WriteFile(id, []byte(result["containerimage.digest"]), 0o644); err != nil {
			return err
		}
	}
	if o.metadata == "" {
		return nil
	}
	all := map[string]any{}
	for k, v := range result {
		all[k] = v
		if data, err := base64.StdEncoding.DecodeString(v); err == nil && strings.HasPrefix(string(data), "{") && json.Valid(data) {
			all[k] = json.RawMessage(data)
		}
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.metadata, append(text, '\n'), 0o644)
}

// epoch adds the time that the environment asks for to a build's arguments, unless they have one.
func epoch(s *session.Session, args []string) []string {
	const name = "SOURCE_DATE_EPOCH"
	v := s.Env(name)
	if v == "" || slices.ContainsFunc(args, func(a string) bool { return a == name || strings.HasPrefix(a, name+"=") }) {
		return args
	}
	return append(args, name+"="+v)
}
