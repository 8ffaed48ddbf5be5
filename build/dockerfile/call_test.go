package dockerfile

import (
	"context"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRules has for each rule a Dockerfile that breaks it, and the same put right.
func TestRules(t *testing.T) {
	rules := map[string]struct{ wrong, right string }{
		"StageNameCasing":                 {"FROM busybox AS Big", "FROM busybox AS big"},
		"FromAsCasing":                    {"FROM busybox as b", "from busybox as b"},
		"NoEmptyContinuation":             {"FROM busybox\nRUN a \\\n\n b", "FROM busybox\nRUN a \\\n# why\n b"},
		"ConsistentInstructionCasing":     {"FROM busybox\nRUN x\nrun y\nRUN z", "from busybox\nrun x"},
		"DuplicateStageName":              {"FROM busybox AS b\nFROM busybox AS b", "FROM busybox AS b\nFROM busybox AS c"},
		"ReservedStageName":               {"FROM busybox AS scratch", "FROM busybox AS scratchy"},
		"JSONArgsRecommended":             {"FROM busybox\nENTRYPOINT x y", "FROM busybox\nSHELL [\"/bin/a\", \"-c\"]\nENTRYPOINT x y"},
		"MaintainerDeprecated":            {"FROM busybox\nMAINTAINER x", "FROM busybox\nLABEL org.opencontainers.image.authors=x"},
		"UndefinedArgInFrom":              {"FROM busybox$x", "ARG x=:latest\nFROM busybox$x"},
		"WorkdirRelativePath":             {"FROM busybox\nWORKDIR x", "FROM busybox\nWORKDIR /a\nWORKDIR x"},
		"UndefinedVar":                    {"FROM busybox\nWORKDIR /$PAHT", "FROM busybox\nARG PAHT\nWORKDIR /$PAHT/${PATH}"},
		"MultipleInstructionsDisallowed":  {"FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]", "FROM busybox AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]"},
		"LegacyKeyValueFormat":            {"FROM busybox\nENV a b", "FROM busybox\nENV a=b c=\"d e\""},
		"InvalidBaseImagePlatform":        {"FROM --platform=linux/arm64 busybox AS b-arm64", "FROM --platform=$BUILDPLATFORM busybox"},
		"RedundantTargetPlatform":         {"FROM --platform=$TARGETPLATFORM busybox", "FROM --platform=$BUILDPLATFORM busybox"},
		"SecretsUsedInArgOrEnv":           {"FROM busybox\nENV API_KEY=x", "FROM busybox\nENV PUBLIC_KEY=x KEYBOARD=y"},
		"InvalidDefaultArgInFrom":         {"ARG v\nFROM busybox:$v", "ARG v=1\nFROM busybox:$v"},
		"FromPlatformFlagConstDisallowed": {"FROM --platform=linux/amd64 busybox", "FROM --platform=linux/amd64 busybox AS build_amd64"},
		"CopyIgnoredFile":                 {"FROM busybox\nCOPY secret x", "FROM busybox\nCOPY public x"},
		"InvalidDefinitionDescription":    {"# check=experimental=all\n\n# a b\nARG x=1\nFROM busybox", "# check=experimental=all\n\n# x is a number\nARG x=1\nFROM busybox"},
		"ExposeProtoCasing":               {"FROM busybox\nEXPOSE 80/TCP", "FROM busybox\nEXPOSE 80/tcp"},
		"JSONArgsInvalid":                 {"FROM busybox\nRUN ['/bin/bash', '-c' 'echo hello']", "FROM busybox\nRUN [ -f x ] && y\nRUN [ \"$X\" = x ] || y\nRUN [\"a\"]"}, // ours
		"ExposeInvalidFormat":             {"FROM busybox\nEXPOSE 127.0.0.1:80:80", "FROM busybox\nEXPOSE 80 8080-8090"},
	}
	if len(rules) != 23 {
		t.Errorf("%d rules", len(rules))
	}
	found := func(text string) (all []string) {
		l := Check(context.Background(), []byte(text), Options{
			Host: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Args: map[string]string{"v": "1"}, Ignored: func(p string) bool { return p == "secret" },
		}, anyImage{})
		for _, w := range l.Warnings {
			all = append(all, w.Rule)
			if w.About == "" || w.Detail == "" || w.At.line() == 0 {
				t.Errorf("%q: %+v", text, w)
			}
		}
		if l.Error != nil {
			t.Errorf("%q: %s", text, l.Error.Message)
		}
		return all
	}
	for rule, c := range rules {
		if got := found(c.wrong); !slices.Contains(got, rule) {
			t.Errorf("%s: %q: %v", rule, c.wrong, got)
		}
		if got := found(c.right); len(got) > 0 {
			t.Errorf("%s: %q: %v", rule, c.right, got)
		}
		first, rest, directive := strings.Cut(c.wrong, "\n")
		if !directive || !strings.HasPrefix(first, "# check") {
			rest = c.wrong
		}
		if got := found("# check=skip=" + rule + "\n" + rest); slices.Contains(got, rule) {
			t.Errorf("%s is skipped: %v", rule, got)
		}
	}
}

// anyImage is a Resolver that has all images, for linux/amd64.
type anyImage struct{}

func (anyImage) Image(_ context.Context, name string, _ ocispec.Platform) (*Image, error) {
	img := base()["busybox"]
	return &Image{Name: name, Config: img}, nil
}

// noImage is one that has none.
type noImage struct{}

func (noImage) Image(_ context.Context, name string, _ ocispec.Platform) (*Image, error) {
	return &Image{Name: name, Unknown: true}, nil
}

// TestCheckOfAllStages shows that stages that are not needed are checked too, that what an absent image sets is not held against anybody, and the
// two forms of the result.
func TestCheckOfAllStages(t *testing.T) {
	const text = "FROM busybox AS unused\nMAINTAINER x\nFROM absent\nWORKDIR /$HERE\nCMD x\n"
	l := Check(context.Background(), []byte(text), Options{Name: "D"}, noImage{})
	want := `
WARNING: MaintainerDeprecated
Maintainer instruction is deprecated in favor of using label
D:2
--------------------
   1 |     FROM busybox AS unused
   2 | >>> MAINTAINER x
   3 |     FROM absent
   4 |     WORKDIR /$HERE
--------------------

WARNING: JSONArgsRecommended
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
D:5
--------------------
   3 |     FROM absent
   4 |     WORKDIR /$HERE
   5 | >>> CMD x
--------------------
`
	if got := l.Text(); got != want {
		t.Errorf("%s", got)
	}
	wrong := Check(context.Background(), []byte("FROM busybox\nRUNN x\n"), Options{}, noImage{})
	if wrong.Error == nil || wrong.Error.At.line() != 2 || !strings.Contains(wrong.Text(), ">>> RUNN x") {
		t.Errorf("%+v", wrong.Error)
	}
	a, err := Call(context.Background(), "check", []byte("FROM scratch\nEXPOSE 1/UDP\n"), Options{}, noImage{})
	if err != nil || a["result.statuscode"] != "1" {
		t.Fatalf("%v %v", a, err)
	}
	if want := `{
  "warnings": [
    {
      "ruleName": "ExposeProtoCasing",
      "description": "Protocol in EXPOSE instruction should be lowercase",
      "url": "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
      "detail": "Defined protocol '1/UDP' in EXPOSE instruction should be lowercase",
      "location": {
        "ranges": [
          {
            "start": {
              "line": 2
            },
            "end": {
              "line": 2
            }
          }
        ]
      }
    }
  ],
  "sources": [
    {
      "filename": "Dockerfile",
      "data": "RlJPTSBzY3JhdGNoCkVYUE9TRSAxL1VEUAo=",
      "language": "Dockerfile"
    }
  ]
}`; a["result.json"] != want {
		t.Errorf("%s", a["result.json"])
	}
}

func TestOutlineAndTargets(t *testing.T) {
	const text = `# VERSION is that of the base
ARG VERSION=1
ARG UNUSED=2
# tools has what all need
FROM busybox:$VERSION AS tools
# FLAGS go to the compiler
ARG FLAGS="-O2 $VERSION"
RUN --mount=type=secret,id=token,required=true --mount=type=ssh x
FROM busybox AS nothing
ARG HERE
# app is what runs
FROM --platform=linux/amd64 tools AS app
ARG VERSION
RUN --mount=type=secret,target=/run/secrets/other x
`
	o := Options{Args: map[string]string{"VERSION": "3"}}
	a, err := Call(context.Background(), "outline", []byte(text), o, anyImage{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := a["result.txt"], `TARGET:      app
DESCRIPTION: is what runs

BUILD ARG   VALUE   DESCRIPTION
VERSION     3       is that of the base
FLAGS       -O2     go to the compiler

SECRET   REQUIRED
token    true
other    

SSH       REQUIRED
default   

`; got != want {
		t.Errorf("%s", got)
	}
	if a, err = Call(context.Background(), "targets", []byte(text), o, anyImage{}); err != nil {
		t.Fatal(err)
	}
	if got, want := a["result.txt"], "TARGET        DESCRIPTION\ntools         has what all need\nnothing       \napp (default) is what runs\n"; got != want {
		t.Errorf("%s", got)
	}
	for _, part := range []string{`"base": "busybox:$VERSION"`, `"platform": "linux/amd64"`, `"default": true`, `"line": 5`} {
		if !strings.Contains(a["result.json"], part) {
			t.Errorf("%s is not in %s", part, a["result.json"])
		}
	}
	if _, err := Call(context.Background(), "dance", []byte(text), o, anyImage{}); err == nil {
		t.Error("an unknown call is answered")
	}
}
