package hostile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/test/testengine"

	"github.com/opencontainers/go-digest"
)

// subject is an image whose wholeness can be told from outside.
type subject struct {
	parts
	archive string // a file that load takes
	words   string // what a container of it says
}

// tell is the program of a container that reads all of a subject.
const tell = "cat /f* | sha256sum"

// subjects are images that share layers with each other.
func subjects(t testing.TB) []subject {
	t.Helper()
	base := busyboxLayer(t)
	content := make([]string, 6)
	layers := make([]layer, len(content))
	for i := range content {
		content[i] = strings.Repeat(fmt.Sprintf("%d%s", i, random(1000+i)), 300)
		layers[i] = layerOf(t, file(fmt.Sprint("f", i), content[i]), dir(fmt.Sprint("d", i)), file(fmt.Sprintf("d%d/%d", i, i), "x"))
	}
	var all []subject
	for n, which := range [][]int{{0, 1}, {0, 1, 2}, {0, 3, 4}, {5}} {
		own, sum := []layer{base}, sha256.New()
		for _, i := range which {
			own = append(own, layers[i])
			io.WriteString(sum, content[i])
		}
		s := subject{parts: imageOf(own, nil), words: fmt.Sprintf("%x  -\n", sum.Sum(nil)), archive: filepath.Join(t.TempDir(), "image.tar")}
		data := layout(t, s.parts, "unused:1")
		if n%2 == 1 {
			data = dockerArchive(t, s.parts, "unused:1")
		}
		if err := os.WriteFile(s.archive, data, 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// owner is one client with names of its own, so that he knows what they have to mean.
type owner struct {
	e       *testengine.Engine
	id      int
	address string
	all     []subject
	random  *rand.Rand
	have    map[string]int  // name → subject
	unsure  map[string]bool // the daemon died while it changed
}

// name is one of the few names that he uses.
func (o *owner) name(repository string) string {
	return fmt.Sprintf("%s/o%d/%s:%d", o.address, o.id, repository, o.random.IntN(2))
}

// act does one thing and notes what it changed; false: it failed.
func (o *owner) act() bool {
	try := func(args ...string) bool { _, err := o.e.Try(args...); return err == nil }
	which := o.random.IntN(len(o.all))
	switch o.random.IntN(9) {
	case 0, 1, 2:
		repository := fmt.Sprint("s", which)
		return o.change(o.name(repository), which, func(name string) bool { return try("pull", "-q", name) })
	case 3: // an archive has one name for all: only then it gets this owner's
		if !try("load", "-q", "-i", o.all[which].archive) {
			return false
		}
	case 4:
		for name, n := range o.have {
			return o.change(o.name("tagged"), n, func(to string) bool { return try("tag", name, to) })
		}
	case 5, 6:
		for name := range o.have {
			return o.change(name, -1, func(name string) bool { return try("rmi", name) })
		}
	case 7:
		for name := range o.have {
			return try("push", "-q", name)
		}
	case 8:
		return try("image", "prune", "-f")
	}
	return true
}

// change notes what a name means after an action: subject to, or nothing (-1).
func (o *owner) change(name string, to int, do func(name string) bool) bool {
	o.unsure[name] = true
	if !do(name) {
		return false
	}
	delete(o.unsure, name)
	if to < 0 {
		delete(o.have, name)
	} else {
		o.have[name] = to
	}
	return true
}

// TestKilledDuringImageWork: kill -9 at random moments of pulls, loads, tags, removals, pushes and prunes. After each restart every listed
// image is whole, what clients were told is true, broken pulls can be repeated, and what nobody names goes.
func TestKilledDuringImageWork(t *testing.T) {
	rounds := 15
	if os.Getenv("BERTH_SOAK") != "" {
		rounds = 200
	}
	e := testengine.Start(t)
	e.Busybox(t)
	all := subjects(t)
	s, address, _ := serve(t)
	const owners = 4
	var list []*owner
	for id := range owners {
		list = append(list, &owner{e: e, id: id, address: address, all: all, random: rand.New(rand.NewPCG(uint64(id), 7)), have: map[string]int{}, unsure: map[string]bool{}})
		for n, one := range all {
			for tag := range 2 {
				one.put(s, fmt.Sprintf("o%d/s%d", id, n), fmt.Sprint(tag))
			}
		}
	}
	moment := rand.New(rand.NewPCG(1, 2))
	done := 0
	for round := range rounds {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, o := range list {
			wg.Go(func() {
				for o.act() {
					mu.Lock()
					done++
					mu.Unlock()
				}
			})
		}
		<-time.After(time.Duration(5+moment.IntN(400)) * time.Millisecond)
		e.Kill()
		wg.Wait()
		e.Up(t)
		checkStore(t, e, round)
		for _, o := range list {
			o.check(t, round)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d actions ended well before their daemon did", done)
	if done < rounds {
		t.Errorf("only %d actions in %d rounds", done, rounds)
	}
	emptied(t, e)
	if log := e.Log(); strings.Contains(log, "panic") {
		t.Errorf("a panic:\n%s", log)
	}
}

// check compares what is there with what the owner was told.
func (o *owner) check(t *testing.T, round int) {
	t.Helper()
	ids := map[string]int{}
	for n, s := range o.all {
		ids[digest.FromBytes(marshal(s.manifest)).String()] = n
	}
	for _, repository := range []string{"s0", "s1", "s2", "s3", "tagged"} {
		for tag := range 2 {
			name := fmt.Sprintf("%s/o%d/%s:%d", o.address, o.id, repository, tag)
			id, err := o.e.Try("inspect", "--type", "image", "-f", "{{.Id}}", name)
			n, known := ids[strings.TrimSpace(id)]
			want, have := o.have[name]
			switch {
			case err == nil && !known:
				t.Errorf("round %d: %s is %s, which is none of the images", round, name, id)
			case o.unsure[name]: // either is right; from now on it is as it is
				if delete(o.have, name); err == nil {
					o.have[name] = n
				}
			case have && err != nil:
				t.Errorf("round %d: %s is lost: %v", round, name, err)
			case have && n != want:
				t.Errorf("round %d: %s is image %d, want %d", round, name, n, want)
			case !have && err == nil:
				t.Errorf("round %d: %s was removed and is there", round, name)
			}
			delete(o.unsure, name)
			if err == nil && known {
				if out, err := o.e.Try("run", "--rm", name, "sh", "-c", tell); out != o.all[n].words {
					t.Errorf("round %d: a container of %s says %q, want %q; %v", round, name, out, o.all[n].words, err)
				}
			}
		}
	}
	// A pull that was broken is repeated, whatever it left.
	n := o.random.IntN(len(o.all))
	name := o.name(fmt.Sprint("s", n))
	if _, err := o.e.Try("pull", "-q", name); err != nil {
		t.Errorf("round %d: pull %s again: %v", round, name, err)
		return
	}
	o.have[name] = n
	if out, err := o.e.Try("run", "--rm", name, "sh", "-c", tell); out != o.all[n].words {
		t.Errorf("round %d: after a pull a container of %s says %q, want %q; %v", round, name, out, o.all[n].words, err)
	}
}

// checkStore hashes every blob and reads every image to its end, from outside of the engine.
func checkStore(t *testing.T, e *testengine.Engine, round int) {
	t.Helper()
	blobs := filepath.Join(e.Data, "blobs/sha256")
	entries, err := os.ReadDir(blobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(blobs, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept meanwhile
		}
		if err != nil || digest.FromBytes(data).Encoded() != entry.Name() {
			t.Errorf("round %d: blob %s is not what its name says: %d bytes, %v", round, entry.Name(), len(data), err)
		}
	}
	for _, image := range list(t, e, "/images/json") {
		id := fmt.Sprint(image["Id"])
		status, archive := callAll(t, e, "GET", "/images/"+id+"/get")
		if status != 200 {
			t.Errorf("round %d: save %s: %d %.300s", round, id, status, archive)
			continue
		}
		there := map[string]bool{}
		r := tar.NewReader(bytes.NewReader(archive))
		for {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("round %d: save %s: %v", round, id, err)
				break
			}
			hex, isBlob := strings.CutPrefix(h.Name, "blobs/sha256/")
			if !isBlob || h.Typeflag != tar.TypeReg {
				continue
			}
			d, err := digest.FromReader(r)
			if err != nil || d.Encoded() != hex {
				t.Errorf("round %d: saved image %s: blob %s has digest %s, %v", round, id, hex, d, err)
			}
			there[hex] = true
		}
		if !there[strings.TrimPrefix(id, "sha256:")] {
			t.Errorf("round %d: saved image %s lacks itself: %v", round, id, there)
		}
	}
	if err := unfinished(e); err != nil {
		t.Errorf("round %d: %v", round, err)
	}
}

// unfinished finds what dead writers left, other than what a pull goes on with.
func unfinished(e *testengine.Engine) error {
	var left []string
	for _, dir := range []string{"blobs/ingest", "layers/stage", "images"} {
		entries, err := os.ReadDir(filepath.Join(e.Data, dir))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if name := entry.Name(); !strings.HasSuffix(name, ".part") && !(dir == "images" && !strings.Contains(name, ".tmp-")) {
				left = append(left, dir+"/"+name)
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left unfinished: %v", left)
	}
	return nil
}

// emptied removes all images and looks whether any content stays.
func emptied(t *testing.T, e *testengine.Engine) {
	t.Helper()
	for _, image := range list(t, e, "/images/json?all=1") {
		e.Run(t, "rmi", "-f", fmt.Sprint(image["Id"]))
	}
	freed(t, e)
	testengine.Eventually(t, 20*time.Second, func() error {
		var left []string
		for _, dir := range []string{"blobs/sha256", "layers/layers", "layers/stage", "layers/trash", "layers/roots", "layers/merged"} {
			entries, err := os.ReadDir(filepath.Join(e.Data, dir))
			if err != nil {
				return err
			}
			for _, entry := range entries {
				left = append(left, dir+"/"+entry.Name())
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("no image is left, but %v", left)
		}
		return unfinished(e)
	})
}

// callAll makes a request and returns the whole answer.
func callAll(t testing.TB, e *testengine.Engine, method, path string) (int, []byte) {
	t.Helper()
	request, err := http.NewRequest(method, "http://engine"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := caller(e).Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	return answer.StatusCode, data
}

// TestPullGoesOnAfterAKill: what arrived before the daemon died is not fetched again.
func TestPullGoesOnAfterAKill(t *testing.T) {
	e := testengine.Start(t)
	content := random(1 << 20)
	p := imageOf([]layer{busyboxLayer(t), layerOf(t, file("f", content))}, nil)
	big := p.manifest.Layers[1].Digest
	stalled := make(chan struct{}, 10)
	var once sync.Once
	m, address, _ := meddle(t, nil)
	const half = 600_000
	m.hook = func(w http.ResponseWriter, r *http.Request) bool {
		cut := false
		if r.Method == "GET" && strings.HasSuffix(r.URL.Path, string(big)) {
			once.Do(func() { cut = true })
		}
		if !cut {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(p.layers[1].data)))
		w.Write(p.layers[1].data[:half])
		w.(http.Flusher).Flush()
		stalled <- struct{}{}
		<-r.Context().Done()
		return true
	}
	p.put(m.Server, "app", "1")
	ended := make(chan struct{})
	go func() { e.Try("pull", address+"/app:1"); close(ended) }()
	<-stalled
	part := filepath.Join(e.Data, "blobs/ingest", big.Encoded()+".part")
	testengine.Eventually(t, 20*time.Second, func() error {
		info, err := os.Stat(part)
		if err == nil && info.Size() < half/2 {
			err = fmt.Errorf("%d bytes arrived", info.Size())
		}
		return err
	})
	e.Kill()
	<-ended
	info, err := os.Stat(part)
	if err != nil {
		t.Fatal(err)
	}
	e.Up(t)
	e.Run(t, "pull", address+"/app:1")
	var asked []string
	for _, r := range m.Requests() {
		if strings.HasPrefix(r, "GET ") && strings.Contains(r, big.Encoded()) {
			asked = append(asked, r)
		}
	}
	if len(asked) != 1 || !strings.HasSuffix(asked[0], fmt.Sprintf("bytes=%d-", info.Size())) {
		t.Errorf("%d bytes were here, and the rest was asked for by %q", info.Size(), asked)
	}
	if out := e.Run(t, "run", "--rm", address+"/app:1", "sh", "-c", "sha256sum </f"); out != fmt.Sprintf("%x  -\n", sha256.Sum256([]byte(content))) {
		t.Errorf("the file is %s", out)
	}
	e.Run(t, "rmi", address+"/app:1")
	emptied(t, e)
}
