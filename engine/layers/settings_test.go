package layers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestSettings(t *testing.T) {
	var a, b dockerspec.DockerOCIImage
	a.Platform, b.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}, ocispec.Platform{OS: "linux", Architecture: "arm64"}
	a.Config.ImageConfig = ocispec.ImageConfig{
		Env: []string{"PATH=/bin", "OLD=1", "SAME=x", "EMPTY="}, Cmd: []string{"sh"}, User: "me",
		Labels: map[string]string{"l": "1", "same": "s"}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}
	b.Config.ImageConfig = ocispec.ImageConfig{
		Env: []string{"SAME=x", "PATH=/usr/bin:/bin", "NEW=2"}, Cmd: []string{"sh", "-c", "a && b"}, Entrypoint: []string{"/init"},
		Labels: map[string]string{"l": "2", "same": "s"}, Volumes: map[string]struct{}{"/data": {}}, WorkingDir: "/srv", StopSignal: "SIGINT",
	}
	b.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"NONE"}}
	p := func(s string) *string { return &s }
	want := []Setting{
		{"Architecture", "", p("amd64"), p("arm64")}, {"User", "", p("me"), nil}, {"WorkingDir", "", nil, p("/srv")}, {"Entrypoint", "", nil, p(`["/init"]`)},
		{"Cmd", "", p(`["sh"]`), p(`["sh","-c","a && b"]`)}, {"StopSignal", "", nil, p("SIGINT")}, {"Healthcheck", "", nil, p(`{"Test":["NONE"]}`)},
		{"Env", "EMPTY", p(""), nil}, {"Env", "NEW", nil, p("2")}, {"Env", "OLD", p("1"), nil}, {"Env", "PATH", p("/bin"), p("/usr/bin:/bin")},
		{"Labels", "l", p("1"), p("2")}, {"ExposedPorts", "80/tcp", p(""), nil}, {"Volumes", "/data", nil, p("")},
	}
	if diff := cmp.Diff(want, settings(a, b)); diff != "" {
		t.Error(diff)
	}
	if got := settings(a, a); len(got) != 0 {
		t.Errorf("an image differs from itself: %v", got)
	}
}
