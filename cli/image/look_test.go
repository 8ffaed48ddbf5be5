package image

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/cli/format"
	"berth/client"
)

// manifest is an image's manifest for a platform, as the API lists it.
func manifest(id, arch, variant string, available bool, content, unpacked int64, users ...string) image.ManifestSummary {
	m := image.ManifestSummary{ID: "sha256:" + strings.Repeat(id, 16), Available: available, Kind: image.ManifestKindImage}
	m.Size.Content, m.Size.Total = content, content+unpacked
	m.ImageData = &image.ImageProperties{Platform: ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}, Containers: users}
	return m
}

func TestTree(t *testing.T) {
	attested := image.ManifestSummary{Kind: image.ManifestKindAttestation, AttestationData: &image.AttestationProperties{}}
	attested.Size.Content = 1000
	list := []treeImage{
		newTreeImage(&image.Summary{ID: "sha256:" + strings.Repeat("abcd", 16), RepoTags: []string{"a:1", "registry.example.org/longer/name:v1"}, Size: 30_000_000, Manifests: []image.ManifestSummary{
			manifest("1234", "amd64", "", true, 10_000_000, 20_000_000, "c1"), attested, manifest("5678", "arm64", "v8", false, 0, 0), manifest("9abc", "\x1b[2J", "", false, 0, 0),
		}}),
		newTreeImage(&image.Summary{ID: "sha256:" + strings.Repeat("ef01", 16), Size: 5}),
	}
	for width, want := range map[int]string{
		90: `                                                                       Info ->  U In Use 

IMAGE                       ID             DISK USAGE   CONTENT SIZE   EXTRA
registry.example.org/longer/name:v1
a:1                                   abcdabcdabcd         30MB           10MB   U    
├─ linux/amd64                        123412341234         30MB           10MB   U    
├─ linux/arm64/v8                     567856785678           0B             0B        
└─ linux/?[2J                         9abc9abc9abc           0B             0B        

<untagged>                            ef01ef01ef01           5B             0B        

`,
		30: `           Info ->  U In Use 

IMAGE           ID          
registry.example.org/longer/n…
a:1             abcdabcdabcd
├─ linux/amd64  123412341234
├─ linux/arm64… 567856785678
└─ linux/?[2J   9abc9abc9abc

<untagged>      ef01ef01ef01

`,
	} {
		table := treeTable{width: width}
		table.draw(list)
		got := table.String()
		if diff := cmp.Diff(squeeze(want), squeeze(got)); diff != "" {
			t.Errorf("width %d: %s\n%s", width, diff, got)
		}
		for line := range strings.Lines(got) {
			if format.Width(strings.TrimRight(line, " \n")) > width {
				t.Errorf("%q is wider than %d", line, width)
			}
			if strings.Contains(line, "10MB") && !strings.Contains(line, "         30MB           10MB   U") {
				t.Errorf("the columns are not aligned: %q", line)
			}
		}
	}
	plain, colored := treeTable{width: 90}, treeTable{width: 90, color: true}
	plain.draw(list)
	colored.draw(list)
	if !strings.Contains(colored.String(), "\x1b[2m├─ linux/arm64/v8\x1b[0m") || strings.Contains(plain.String(), "\x1b") {
		t.Errorf("colors: %q", colored.String())
	}
}

// squeeze makes one blank of many.
func squeeze(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestPrintDiff(t *testing.T) {
	p := func(s string) *string { return &s }
	d := &client.ImageDiff{
		Config: []client.SettingDiff{{Field: "User", To: p("me")}, {Field: "Env", Name: "PATH", From: p("/bin"), To: p("/usr/bin")}, {Field: "Labels", Name: "a\x1bb", From: p("line\n")}},
		Files: []client.FileDiff{
			{Path: "/d", Change: "A", To: &client.FileShape{Mode: 0o40755}},
			{Path: "/d/f", Change: "A", To: &client.FileShape{Mode: 0o100644, Size: 1500}},
			{Path: "/e", Change: "C", What: []string{"content", "owner"}, From: &client.FileShape{Mode: 0o100644, Size: 1}, To: &client.FileShape{Mode: 0o100644, Size: 2, UID: 3}},
			{Path: "/l", Change: "C", What: []string{"link"}, From: &client.FileShape{Mode: 0o120777, Link: "a"}, To: &client.FileShape{Mode: 0o120777, Link: "b"}},
			{Path: "/x\x1b", Change: "D", From: &client.FileShape{Mode: 0o100644}},
		},
		Added: client.FileSum{Files: 1, Bytes: 1500}, Removed: client.FileSum{Files: 1}, Changed: client.FileSum{Files: 2, Bytes: 2},
	}
	const want = `  CONFIG             FROM       TO
A User                          me
C Env PATH           /bin       /usr/bin
D Labels "a\x1bb"    "line\n"

  PATH       WHAT            FROM             TO
A /d                                          drwxr-xr-x
A /d/f                                        1.5kB
C /e         content,owner   0:0 1B           3:0 2B
C /l         link            -> a             -> b
D "/x\x1b"                   0B

Added 1 file (1.5kB), removed 1 file (0B), changed 2 files (2B)
`
	var b strings.Builder
	if err := printDiff(&b, d); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); squeeze(got) != squeeze(want) {
		t.Error(cmp.Diff(want, got))
	}
	for line := range strings.Lines(b.String()) {
		if line != strings.TrimRight(line, " \n")+"\n" {
			t.Errorf("blanks at the end of %q", line)
		}
	}
}

func TestGraph(t *testing.T) {
	root := &graphNode{}
	layers := []string{"sha256:" + strings.Repeat("1", 64), "sha256:" + strings.Repeat("2", 64), "sha256:" + strings.Repeat("3", 64), "sha256:" + strings.Repeat("4", 64)}
	image := func(id string, names ...string) graphImage {
		return graphImage{"sha256:" + strings.Repeat(id, 64), names, 1000}
	}
	root.add(layers[:1], image("a", "base:1", "base:2"))
	root.add(layers, image("b", "app:1"))
	root.add([]string{layers[0], layers[3]}, image("c"))
	root.add(nil, image("d", "scratch:1"))
	var b strings.Builder
	root.draw(&b, "")
	const want = `└─ 111111111111  aaaaaaaaaaaa 1kB base:1 base:2
   ├─ 222222222222 … 444444444444 (3 layers)  bbbbbbbbbbbb 1kB app:1
   └─ 444444444444  cccccccccccc 1kB <untagged>
(no layers)  dddddddddddd 1kB scratch:1
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	b.Reset()
	if err := root.dot(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`"layer1" -> "base"`, `"layer2" -> "layer1"`, `"layer5" -> "layer1"`, `"layer4image0" -> "layer4"`, `"baseimage0" -> "base"`, `[label="111111111111"]`} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %s in\n%s", line, b.String())
		}
	}
}
