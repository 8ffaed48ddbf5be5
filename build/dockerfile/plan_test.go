package dockerfile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// images is a Resolver of what it has.
type images map[string]dockerspec.DockerOCIImage

func (i images) Image(_ context.Context, name string, _ ocispec.Platform) (*Image, error) {
	img, ok := i[name]
	if !ok {
		return nil, fault.New(fault.NotFound, "%s: not found", name)
	}
	return &Image{Name: name, Config: img}, nil
}

func base(change ...func(*dockerspec.DockerOCIImage)) images {
	img := dockerspec.DockerOCIImage{}
	img.OS, img.Architecture = "linux", "amd64"
	img.Config.Env = []string{"PATH=/bin"}
	img.Config.Cmd = []string{"sh"}
	for _, c := range change {
		c(&img)
	}
	return images{"busybox": img}
}

func plan(text string, find Resolver, change ...func(*Options)) (*Plan, error) {
	o := Options{Host: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	for _, c := range change {
		c(&o)
	}
	f, err := Parse([]byte(text), o)
	if err != nil {
		return nil, err
	}
	return f.Plan(context.Background(), find)
}

// show writes a plan in a line a step.
func show(p *Plan) string {
	var b strings.Builder
	for _, s := range p.Stages {
		fmt.Fprintf(&b, "%s(", s.Name)
		switch {
		case s.Base.Stage != nil:
			b.WriteString("stage " + s.Base.Stage.Name)
		case s.Base.Image != nil:
			b.WriteString(s.Base.Image.Name)
		}
		b.WriteString(")")
		for _, st := range s.Steps {
			switch do := st.Do.(type) {
			case *Run:
				fmt.Fprintf(&b, "; run %q in %s", do.Args, do.Dir)
			case *Copy:
				from := ""
				if do.From != nil {
					from = do.From.Name + ":"
				}
				fmt.Fprintf(&b, "; copy %s", from)
				for _, src := range do.Sources {
					fmt.Fprintf(&b, "%s ", src.Path)
				}
				b.WriteString(do.Dest)
			case *Mkdir:
				fmt.Fprintf(&b, "; mkdir %s", do.Path)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"one stage":             {"FROM busybox\nWORKDIR a\nRUN echo $X\nCOPY x y/\n", "(busybox); mkdir /a; run [\"/bin/sh\" \"-c\" \"echo $X\"] in /a; copy x /a/y/\n"},
		"unused stage":          {"FROM nothing AS a\nRUN x\nFROM busybox\nRUN y", "stage-1(busybox); run [\"/bin/sh\" \"-c\" \"y\"] in /\n"},
		"copy from a stage":     {"FROM busybox AS a\nRUN x\nFROM busybox\nCOPY --from=a /x /y", "a(busybox); run [\"/bin/sh\" \"-c\" \"x\"] in /\nstage-1(busybox); copy a:/x /y\n"},
		"copy from a number":    {"FROM busybox\nFROM busybox\nCOPY --from=0 /x .", "stage-0(busybox)\nstage-1(busybox); copy stage-0:/x /\n"},
		"stage on a stage":      {"FROM busybox AS a\nWORKDIR /q\nFROM a\nRUN x", "a(busybox); mkdir /q\nstage-1(stage a); run [\"/bin/sh\" \"-c\" \"x\"] in /q\n"},
		"copy from an image":    {"FROM scratch\nCOPY --from=busybox /x /y", "busybox(busybox)\n(); copy busybox:/x /y\n"},
		"argument in FROM":      {"ARG B=busybox\nFROM ${B}\nRUN [\"a\", \"b\"]", "(busybox); run [\"a\" \"b\"] in /\n"},
		"patterns":              {"FROM busybox\nARG A=a.tar.gz\nWORKDIR /${A%.gz}/${A##*.}/${A/tar/zip}", "(busybox); mkdir /a.tar/gz/a.zip.gz\n"},
		"env for one line":      {"FROM busybox\nENV a=1\nENV a=2 b=$a\nWORKDIR /$a$b", "(busybox); mkdir /21\n"},
		"heredoc":               {"FROM busybox\nRUN <<E\necho 1\necho 2\nE\n", "(busybox); run [\"/bin/sh\" \"-c\" \"echo 1\\necho 2\\n\"] in /\n"},
		"heredoc for a command": {"FROM busybox\nRUN cat <<E >x\n$y\nE\n", "(busybox); run [\"/bin/sh\" \"-c\" \"cat <<E >x\\n$y\\nE\"] in /\n"},
		"script":                {"FROM busybox\nRUN <<E\n#!/bin/awk\nx\nE\n", "(busybox); run [\"/bin/sh\" \"-c\" \"/dev/pipes/E\"] in /\n"},
		"shell":                 {"FROM busybox\nSHELL [\"a\", \"-b\"]\nRUN c d", "(busybox); run [\"a\" \"-b\" \"c d\"] in /\n"},
		"escape":                {"# escape=`\nFROM busybox\nRUN a `\n  b", "(busybox); run [\"/bin/sh\" \"-c\" \"a   b\"] in /\n"},
	} {
		p, err := plan(c.text, base())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := show(p); got != c.want {
			t.Errorf("%s:\n%s\nwanted\n%s", name, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	p, err := plan(`FROM busybox
ARG V=1
ENV A=$V B="x y"
LABEL l=$A
EXPOSE 80 90-91/udp
VOLUME /v ["w"]
USER u
STOPSIGNAL INT
HEALTHCHECK --interval=5s CMD ok
ENTRYPOINT ["e"]
ONBUILD RUN later
MAINTAINER me
`, base())
	if err != nil {
		t.Fatal(err)
	}
	c := p.Target.Image.Config
	got := strings.TrimSpace(fmt.Sprintln(c.Env, c.Labels, c.ExposedPorts, c.User, c.StopSignal, c.Entrypoint, c.Cmd, c.OnBuild, p.Target.Image.Author, c.Healthcheck.Test))
	if want := "[PATH=/bin A=1 B=x y] map[l:1] map[80/tcp:{} 90/udp:{} 91/udp:{}] u INT [e] [] [RUN later] me [CMD-SHELL ok]"; got != want {
		t.Errorf("%s\nwanted\n%s", got, want)
	}
}

func TestTriggers(t *testing.T) {
	find := base(func(i *dockerspec.DockerOCIImage) {
		i.Config.OnBuild = []string{"RUN one", "COPY --from=a /x /y"}
	})
	p, err := plan("FROM scratch AS a\nCOPY f /x\nFROM busybox\nRUN two", find)
	if err != nil {
		t.Fatal(err)
	}
	want := "a(); copy f /x\nstage-1(busybox); run [\"/bin/sh\" \"-c\" \"one\"] in /; copy a:/x /y; run [\"/bin/sh\" \"-c\" \"two\"] in /\n"
	if got := show(p); got != want {
		t.Errorf("%s\nwanted\n%s", got, want)
	}
	if o := p.Target.Image.Config.OnBuild; o != nil {
		t.Errorf("triggers are left: %v", o)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "cannot be empty",
		"RUN x":                "no build stage in current context",
		"FROM busybox\nRUNN x": "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
		"FROM ./busybox":       "Dockerfile:1: failed to parse stage name \"./busybox\": invalid reference format",
		"# check=error=true\nFROM busybox\nENTRYPOINT x\nWORKDIR y\nCMD x": "lint violation found for rules: JSONArgsRecommended, WorkdirRelativePath",
		"FROM ubuntu:16:04":                                  "Dockerfile:1: failed to parse stage name \"ubuntu:16:04\": invalid reference format (did you mean ubuntu:16.04?)",
		"FROM Busy:A":                                        "repository name (library/Busy) must be lowercase (did you mean busy:A?)",
		"FROM https://h.io/x":                                "invalid reference format (did you mean h.io/x?)",
		"FROM bosybox":                                       "Dockerfile:1: bosybox: not found",
		"FROM a AS b\nFROM c\nCOPY --from=bb x y":            "Dockerfile:2: c: not found",
		"FROM busybox\nCOPY --from=1 a b\nFROM x":            "not be defined", // replaced below
		"FROM busybox\nEXPOSE 99999":                         "Dockerfile:2: invalid containerPort: 99999",
		"FROM busybox\nADD --checksum=x a b":                 "Dockerfile:2: checksum requires HTTP(S) or Git sources",
		"FROM busybox\nCOPY http://h/x y":                    "Dockerfile:2: source can't be a URL for COPY",
		"FROM busybox\nRUN --mount=type=nope x":              "Dockerfile:2: ",
		"FROM busybox\nCOPY --chmod=9 a b":                   "Dockerfile:2: invalid chmod parameter",
		"FROM $nothing":                                      "base name ($nothing) should not be blank",
		"FROM busybox\nRUN --mount=target=/ x":               "invalid mount target",
		"FROM busybox\nENV\n":                                "ENV requires at least one argument",
		"FROM busybox\nONBUILD ONBUILD RUN x":                "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
		"FROM busybox AS a\nCOPY --from=a / /":               "Dockerfile:2: circular dependency detected on stage: a",
		"FROM busybox\nWORKDIR ${a?must be set}":             "must be set",
		"FROM --platform=$X busybox":                         "empty platform value from expression $X",
		"FROM busybox\nADD --checksum=sha256:z http://h/x y": "invalid checksum",
	} {
		if want == "not be defined" {
			text, want = "FROM busybox\nCOPY --from=1 a b\nFROM busybox AS x", "it needs to be defined before current stage"
			_, err := plan(text, base(), func(o *Options) { o.Target = "0" })
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		_, err := plan(text, base())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, wanted %q", text, err, want)
		}
	}
}

func TestQuote(t *testing.T) {
	_, err := plan("FROM busybox\n\nRUN x\nRUNN y\nRUN z\nRUN 1\nRUN 2", base())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T %v", err, err)
	}
	want := "   2 |     \n   3 |     RUN x\n   4 | >>> RUNN y\n     |     ^^^^\n   5 |     RUN z\n   6 |     RUN 1\n"
	if e.Quote != want {
		t.Errorf("%q\nwanted\n%q", e.Quote, want)
	}
}

func FuzzPlan(f *testing.F) {
	f.Add("FROM busybox AS a\nARG x=1\nRUN --mount=type=cache,target=/c <<E\n$x\nE\nFROM a\nCOPY --from=a --chown=1:2 /x* ${x%1}/\n")
	f.Add("# escape=`\n# check=skip=all\nFROM scratch\nADD --checksum=sha256:00 https://h/x.git?ref=y#z:q /\nEXPOSE 1-5/udp\n")
	f.Fuzz(func(_ *testing.T, text string) {
		p, err := plan(text, base())
		if err == nil && p.Target != p.Stages[len(p.Stages)-1] {
			panic("the target is not last")
		}
	})
}

// TestMarks shows the word that is wrong.
func TestMarks(t *testing.T) {
	for text, want := range map[string]string{
		"FROM ubuntu:16:04":                     "   1 | >>> FROM ubuntu:16:04\n     |          ^^^^^^^^^^^^\n",
		"FROM busybox\n\tEXPOSE 1 99999":        "   1 |     FROM busybox\n   2 | >>> \tEXPOSE 1 99999\n     |     \t         ^^^^^\n",
		"FROM busybox\nRUN --nope x":            "   1 |     FROM busybox\n   2 | >>> RUN --nope x\n     |         ^^^^^^\n",
		"FROM busybox\nCOPY --chmod=9 \\\n a b": "   1 |     FROM busybox\n   2 | >>> COPY --chmod=9 \\\n   3 | >>>  a b\n",
	} {
		_, err := plan(text, base())
		var e *Error
		if !errors.As(err, &e) || e.Quote != want {
			t.Errorf("%q: %v\n%q", text, err, e.Quote)
		}
	}
}
