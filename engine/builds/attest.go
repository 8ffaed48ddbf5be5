package builds

import (
	"encoding/csv"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/build"
	"berth/build/output"
	"berth/fault"
	"berth/image"
)

// provenance is what is to be said of where an image came from.
type provenance struct {
	inline       bool // only where an image is made of it
	args         map[string]string
	path         string
	id           string
	begun, ended time.Time
}

func (p *provenance) end() {
	if p != nil {
		p.ended = time.Now().UTC()
	}
}

// attested reads what is to be attested; newID names the build.
func (o *Options) attested(newID func() string) (p *provenance, err error) {
	for _, kind := range slices.Sorted(maps.Keys(o.Attest)) {
		switch text := o.Attest[kind]; kind {
		case "provenance":
			if p, err = o.provenance(text); err != nil {
				return nil, err
			}
			if p != nil {
				p.id = newID()
			}
		case "sbom":
			if off, err := strconv.ParseBool(text); text == "disabled=true" || err == nil && !off {
				continue
			}
			return nil, fault.New(fault.Unsupported, "attestation sbom: berth runs no scanner in a build: make the list by a program in a stage, or of the image when it is there")
		default:
			return nil, fault.New(fault.Invalid, "attestation %q: there is provenance", kind)
		}
	}
	return p, nil
}

// provenance reads "mode=min" and the like; nil: it is not wanted.
func (o *Options) provenance(text string) (*provenance, error) {
	p := &provenance{path: path.Base(o.Dockerfile), begun: time.Now().UTC()}
	if o.Dockerfile == "" {
		p.path = "Dockerfile"
	}
	if on, err := strconv.ParseBool(text); err == nil || text == "" {
		if text != "" && !on {
			return nil, nil
		}
		return p, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fault.New(fault.Invalid, "attestation provenance: %w", err)
	}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, "=")
		on, boolErr := strconv.ParseBool(v)
		switch {
		case k == "mode" && v == "min", k == "version" && v == "v1", k == "type" && v == "provenance", k == "reproducible", k == "builder-id" && v == "", k == "filename":
		case k == "mode" && v == "max":
			p.args = map[string]string{}
			for name, value := range o.Args {
				p.args["build-arg:"+name] = value
			}
			for name, value := range o.Labels {
				p.args["label:"+name] = value
			}
			if o.Target != "" {
				p.args["target"] = o.Target
			}
		case k == "inline-only" && boolErr == nil:
			p.inline = on
		case k == "disabled" && boolErr == nil:
			if on {
				return nil, nil
			}
		default:
			return nil, fault.New(fault.Unsupported, "attestation provenance: %s: there are mode=min, mode=max, version=v1 and inline-only", f)
		}
	}
	return p, nil
}

// origin says where a result came from. One whose time is given has none of its own in it, so that it is the same each time.
func (s *Solved) origin(r *build.Result) (output.Statement, error) {
	p := s.provenance
	o := output.Origin{Path: p.path, Args: p.args, Builder: image.Host()}
	if r.Plan.Epoch == nil {
		o.ID, o.Begun, o.Ended = p.id, p.begun.Format(time.RFC3339Nano), p.ended.Format(time.RFC3339Nano)
	}
	for _, st := range r.Plan.Stages {
		if b := st.Base.Image; b != nil {
			o.Bases = append(o.Bases, output.Base{Name: b.Name, Platform: b.Config.Platform, Digest: b.Digest})
		}
	}
	return output.Provenance(o)
}
