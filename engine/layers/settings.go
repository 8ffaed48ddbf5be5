package layers

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Setting is something that two images' configs say differently.
type Setting struct {
	Field string  // as in the config, such as Env or Cmd
	Name  string  `json:",omitempty"` // which one, where a field has several: a variable, a label, a port, a volume
	From  *string // nil: only the second image has it. A list is written as JSON
	To    *string // nil: only the first image has it
}

// settings compares configs, in the order of the fields below.
func settings(a, b dockerspec.DockerOCIImage) []Setting {
	list := []Setting{}
	one := func(field, from, to string) {
		if from != to {
			list = append(list, Setting{field, "", some(from), some(to)})
		}
	}
	several := func(field string, from, to map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(both(from, to))) {
			x, inA := from[k]
			y, inB := to[k]
			s := Setting{Field: field, Name: k}
			if inA {
				s.From = &x
			}
			if inB {
				s.To = &y
			}
			if inA != inB || x != y {
				list = append(list, s)
			}
		}
	}
	x, y := a.Config, b.Config
	one("Os", a.OS, b.OS)
	one("Architecture", a.Architecture, b.Architecture)
	one("Variant", a.Variant, b.Variant)
	one("Author", a.Author, b.Author)
	one("User", x.User, y.User)
	one("WorkingDir", x.WorkingDir, y.WorkingDir)
	one("Entrypoint", text(x.Entrypoint), text(y.Entrypoint))
	one("Cmd", text(x.Cmd), text(y.Cmd))
	one("Shell", text(x.Shell), text(y.Shell))
	one("StopSignal", x.StopSignal, y.StopSignal)
	one("Healthcheck", health(x.Healthcheck), health(y.Healthcheck))
	one("OnBuild", text(x.OnBuild), text(y.OnBuild))
	several("Env", variables(x.Env), variables(y.Env))
	several("Labels", x.Labels, y.Labels)
	several("ExposedPorts", set(x.ExposedPorts), set(y.ExposedPorts))
	several("Volumes", set(x.Volumes), set(y.Volumes))
	return list
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// text writes a list as a Dockerfile has it.
func text(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return encode(list)
}

func health(h *dockerspec.HealthcheckConfig) string {
	if h == nil {
		return ""
	}
	return encode(h)
}

func encode(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// variables reads NAME=VALUE lines; the last one of a name counts.
func variables(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, v := range list {
		name, value, _ := strings.Cut(v, "=")
		m[name] = value
	}
	return m
}

func set(names map[string]struct{}) map[string]string {
	m := make(map[string]string, len(names))
	for n := range names {
		m[n] = ""
	}
	return m
}

func both(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	if m == nil {
		m = map[string]string{}
	}
	maps.Copy(m, b)
	return m
}
