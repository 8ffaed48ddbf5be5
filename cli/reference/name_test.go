package reference

import (
	"strings"
	"testing"
)

func TestNamesAreReadAndWritten(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                             "docker.io/library/busybox busybox:latest",
		"localhost:5000/a/b:v1":               "localhost:5000/a/b:v1 localhost:5000/a/b:v1",
		"ubuntu:16:04":                        `error: invalid reference format: "ubuntu:16:04" has two tags; did you mean ubuntu:16.04?`,
		"a__b/c--d":                           "docker.io/a__b/c--d a__b/c--d:latest",
		"a___b":                               `error: invalid reference format: "a___b": "a___b" is not a part of a repository's name`,
		"-a":                                  `error: invalid reference format: "-a": "-a" is not a part of a repository's name`,
		"a:":                                  `error: invalid reference format: "a:": "" is not a tag`,
		"a@b":                                 `error: invalid reference format: "a@b": "b" is not a digest`,
		"a@sha256:" + strings.Repeat("a", 64): "docker.io/library/a@sha256:" + strings.Repeat("a", 64) + " a@sha256:" + strings.Repeat("a", 64),
		strings.Repeat("a", 64):               "error: invalid repository name (" + strings.Repeat("a", 64) + "), cannot specify 64-byte hexadecimal strings",
		"":                                    "error: invalid reference format: the image's name is empty",
	} {
		r, err := Parse(in)
		got := r.String() + " " + r.Tagged().Familiar()
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got  %s\n want %s", in, got, want)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"80", "[::1]:8080:80/udp", "localhost:5000/a:1", "a/b@sha256:00", "busybox:1@sha256:aa", "/dev/a:rw", "1.5", "a__b--c", "EXAMPLE/a", "a=b\nC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if r, err := Parse(v); err == nil {
			again, err := Parse(r.String())
			if err != nil || again != r {
				t.Errorf("%q: %q is read as %+v, %v", v, r, again, err)
			}
			if again, err = Parse(r.Familiar()); err != nil || again != r {
				t.Errorf("%q: the short %q is read as %+v, %v", v, r.Familiar(), again, err)
			}
		}
	})
}
