package forward

import (
	"encoding/json"
	"strings"
	"testing"
	"text/template"
	"time"
)

func taggedInfo() *Info {
	return &Info{
		ContainerID: "0123456789abcdef", ContainerName: "/web", ContainerEntrypoint: "sh", ContainerArgs: []string{"-c", "x y"}, ContainerImageName: "busybox<1>",
		ContainerImageID: "sha256:fedcba9876543210", ContainerCreated: time.Unix(1700000000, 5).UTC(), ContainerEnv: []string{"A=1", "B=2"},
		ContainerLabels: map[string]string{"team": "blue", "tier": ""}, DaemonName: "berth",
	}
}

// TestTagsAsTemplates: what a tag gives is what text/template makes of it.
func TestTagsAsTemplates(t *testing.T) {
	info := taggedInfo()
	funcs := template.FuncMap{
		"json":  func(v any) (string, error) { data, err := json.Marshal(v); return string(data), err },
		"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
	}
	for _, tag := range []string{
		"", "plain", "{{/* nothing */}}x", "{{.ImageName}}/{{.Name}}/{{.ID}}", "{{- .Name -}}  x",
		"{{.ContainerLabels}} {{.ContainerEnv}} {{.ContainerCreated}} {{.ContainerLabels.team}} {{.ContainerLabels.none}} {{.Opts}}",
		`{{index .ContainerLabels "team"}}{{index .ContainerLabels "none"}}{{index .ContainerEnv 1}}{{index .ContainerArgs 1 0}}`,
		`{{.ContainerCreated.Unix}} {{.ContainerCreated.Format "2006-01-02"}} {{(.ContainerCreated.UTC).Unix}}`,
		`{{if .ContainerLabels.tier}}a{{else if eq .Name "web" "x"}}b{{else}}c{{end}}`, `{{with .ContainerLabels.team}}{{.}}{{$.Name}}{{else}}none{{end}}`,
		`{{with .ContainerLabels.none}}a{{else with .Name}}{{.}}{{end}}`,
		`{{range .ContainerEnv}}[{{.}}]{{end}}`, `{{range $i, $e := .ContainerEnv}}{{$i}}={{$e}};{{end}}`, `{{range $k, $v := .ContainerLabels}}{{$k}}:{{$v}},{{end}}`,
		`{{range .Opts}}x{{else}}empty{{end}}`, `{{range .ContainerEnv}}{{if eq . "B=2"}}{{break}}{{end}}{{.}}{{continue}}never{{end}}`,
		`{{$x := .Name}}{{$x}}{{$x = upper $x}}{{$x}}{{range $x := .ContainerEnv}}{{$x}}{{end}}{{$x}}`, `{{if true}}{{$y := 1}}{{$y}}{{end}}`,
		`{{$last := ""}}{{range $last = .ContainerEnv}}{{end}}{{$last}}`,
		`{{.Name | upper | printf "%s-%s" .ID}}`, `{{printf "%5.5s|%d|%v" .Name 3 1.0}}`, `{{print 1 2 "x" 0x1e 'e' 1e3}}`, `{{println .Name}}`,
		`{{html .ImageName}} {{urlquery .Command}} {{json .ContainerLabels}} {{join .ContainerArgs ","}} {{split .Command " "}} {{len .ContainerEnv}} {{len .Name}}`,
		`{{and .Name .ContainerLabels.none .Nothing}}`, `{{or .ContainerLabels.tier .Name .Nothing}}`, `{{.Name | and true}}`, `{{not .Name}} {{not .ContainerLabels.tier}}`,
		`{{eq 1 1}} {{ne .Name "a"}} {{lt 1 2}} {{le "b" "a"}} {{gt 2.5 1.5}} {{ge 1 1}} {{eq true false}} {{eq .ContainerLabels.none "x"}}`,
		`{{(index .ContainerEnv 0) | lower}}`, `{{(split .Command " ") | len}}`, `{{if and (eq .Name "web") (gt (len .ContainerEnv) 1)}}yes{{end}}`,
		// what neither takes
		"{{.Nothing}}", "{{.Name.Nothing}}", "{{nothing}}", "{{", "{{if}}", "{{end}}", `{{template "x"}}`, `{{index .ContainerEnv 2}}`, `{{lt 1 "a"}}`, `{{upper 1}}`, `{{.Name 1}}`,
		`{{range .Name}}{{end}}{{index .Name "x"}}`, `{{len 3}}`, `{{len}}`, `{{and}}`, `{{not}}`, `{{split "a"}}`, `{{$z}}`, `{{break}}`, `{{ContainerLabels}}`, `{{1 2}}`, `{{nil}}`,
	} {
		var want strings.Builder
		reference, wantErr := template.New("log-tag").Funcs(funcs).Parse(tag)
		if wantErr == nil {
			wantErr = reference.Execute(&want, info)
		}
		got, err := info.execute(tag)
		switch {
		case (err == nil) != (wantErr == nil):
			t.Errorf("%s: %v, want %v", tag, err, wantErr)
		case err == nil && got != want.String():
			t.Errorf("%s: %q, want %q", tag, got, want.String())
		}
	}
}

// FuzzTag: whoever creates a container writes its tag, which the daemon carries out.
func FuzzTag(f *testing.F) {
	for _, tag := range []string{"{{.ID}}", `{{range $k, $v := .ContainerLabels}}{{pad $k 1 2}}{{end}}`, `{{index .ContainerArgs -1 | truncate 2}}`, `{{pad .Name 1000000000 0}}`,
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`, `{{printf "%[9]*d" 1}}`, `{{block "x" .}}{{.}}{{end}}`, `{{with $x := .}}{{$x.Name}}{{json $x}}{{end}}`} {
		f.Add(tag)
	}
	info := taggedInfo()
	f.Fuzz(func(t *testing.T, tag string) {
		if out, err := info.execute(tag); err != nil && out != "" {
			t.Errorf("%q: %q with %v", tag, out, err)
		}
	})
}
