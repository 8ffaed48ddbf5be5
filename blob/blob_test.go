package blob_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/blob"
	"berth/fault"
	"berth/internal/kerneltest"
	"berth/internal/record"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func open(t testing.TB, dir string) *blob.Store {
	t.Helper()
	s, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *blob.Store, content string) digest.Digest {
	t.Helper()
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	d, err := w.Commit("", -1)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func get(t testing.TB, s *blob.Store, d digest.Digest) string {
	t.Helper()
	f, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// files lists all that lies in dir below sub.
func files(t testing.TB, dir, sub string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, sub))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestContentLivesUnderItsDigest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := put(t, s, "hello")
	if want := digest.FromString("hello"); d != want {
		t.Errorf("digest %s, want %s", d, want)
	}
	if got := get(t, s, d); got != "hello" || !s.Has(d) {
		t.Errorf("content %q, has %v", got, s.Has(d))
	}
	if n, err := s.Size(d); n != 5 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	if err := s.Verify(d); err != nil {
		t.Error(err)
	}
	other := put(t, s, "other")
	seen := map[digest.Digest]int64{}
	if err := s.Walk(func(d digest.Digest, n int64) error { seen[d] = n; return nil }); err != nil || len(seen) != 2 || seen[other] != 5 {
		t.Errorf("walk: %v, %v", seen, err)
	}
	if err := errors.Join(s.Remove(d), s.Remove(d), s.Sync()); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(d); !errors.Is(err, fault.NotFound) || s.Has(d) {
		t.Errorf("after removal: %v", err)
	}
	if _, err := s.Size(d); !errors.Is(err, fault.NotFound) {
		t.Errorf("size after removal: %v", err)
	}
	if left := files(t, dir, "ingest"); len(left) != 0 {
		t.Errorf("left in ingest: %v", left)
	}
}

func TestMismatchIsCorruptWithBothValues(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	other := digest.FromString("other")
	for name, c := range map[string]struct {
		want digest.Digest
		size int64
		says []string
	}{
		"digest": {other, -1, []string{other.String(), digest.FromString("hello").String()}},
		"size":   {"", 6, []string{"5 bytes", "expected 6"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := s.Create()
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, "hello")
			_, err = w.Commit(c.want, c.size)
			if !errors.Is(err, fault.Corrupt) {
				t.Errorf("error %v", err)
			}
			for _, s := range c.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("error %v does not say %q", err, s)
				}
			}
			if _, err := w.Write([]byte("x")); err == nil {
				t.Error("write after commit works")
			}
			if left := append(files(t, dir, "ingest"), files(t, dir, "sha256")...); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestForeignDigestsNameNoFile(t *testing.T) {
	s := open(t, t.TempDir())
	for _, d := range []digest.Digest{"", "sha256:../../etc/passwd", "sha256:ab", "sha512:" + digest.Digest(strings.Repeat("a", 128)), "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if _, err := s.Open(d); !errors.Is(err, fault.Invalid) {
			t.Errorf("open %q: %v", d, err)
		}
		if _, _, err := s.Resume(d); !errors.Is(err, fault.Invalid) {
			t.Errorf("resume %q: %v", d, err)
		}
	}
}

func TestBrokenDownloadResumes(t *testing.T) {
	dir := t.TempDir()
	want := digest.FromString("hello world")
	s := open(t, dir)
	w, at, err := s.Resume(want)
	if err != nil || at != 0 {
		t.Fatal(at, err)
	}
	io.WriteString(w, "hello ")
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir) // a new daemon finds it
	w, at, err = s.Resume(want)
	if err != nil || at != 6 || w.Size() != 6 {
		t.Fatalf("resumed at %d, %v", at, err)
	}
	rival, at2, err := s.Resume(want) // a second download of the same content starts on its own
	if err != nil || at2 != 0 {
		t.Fatalf("rival at %d, %v", at2, err)
	}
	io.WriteString(rival, "hello world")
	io.WriteString(w, "world")
	if w.Digest() != want {
		t.Errorf("digest so far %s", w.Digest())
	}
	if _, err := rival.Commit(want, 11); err != nil {
		t.Error(err)
	}
	if _, err := w.Commit("", 11); err != nil {
		t.Error(err)
	}
	if got := get(t, s, want); got != "hello world" {
		t.Errorf("content %q", got)
	}
	if left := files(t, dir, "ingest"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRestartForgetsThePartial(t *testing.T) {
	s := open(t, t.TempDir())
	want := digest.FromString("new")
	w, _, err := s.Resume(want)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "old and longer")
	if err := w.Restart(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "new")
	if _, err := w.Commit(want, 3); err != nil {
		t.Error(err)
	}
}

func TestDamagedPartialIsDropped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	want := digest.FromString("hello")
	for _, bytes := range []string{"wrong", "hello"} {
		w, at, err := s.Resume(want)
		if err != nil || at != 0 {
			t.Fatalf("at %d, %v", at, err)
		}
		io.WriteString(w, bytes)
		if _, err := w.Commit(want, 5); (err == nil) != (bytes == "hello") {
			t.Errorf("commit of %q: %v", bytes, err)
		}
	}
}

func TestWritersOfOneDigestBothSucceed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	content := strings.Repeat("same ", 100_000)
	want := digest.FromString(content)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			w, _, err := s.Resume(want)
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			if _, err := io.Copy(w, strings.NewReader(content[w.Size():])); err != nil {
				t.Error(err)
			}
			if _, err := w.Commit(want, int64(len(content))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := s.Verify(want); err != nil {
		t.Error(err)
	}
	if left := files(t, dir, "ingest"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOpenSweepsWhatTheDeadLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ingest := filepath.Join(dir, "ingest")
	fresh := digest.FromString("fresh").Encoded() + ".part"
	stale := digest.FromString("stale").Encoded() + ".part"
	for _, name := range []string{"new-123", fresh, stale} {
		if err := os.WriteFile(filepath.Join(ingest, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-8 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(ingest, stale), old, old); err != nil {
		t.Fatal(err)
	}
	alive, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(alive, "x")
	open(t, dir)
	if left := files(t, dir, "ingest"); len(left) != 2 || left[0] != fresh && left[1] != fresh {
		t.Errorf("left %v, want %s and the open writer's", left, fresh)
	}
	if _, err := alive.Commit("", 1); err != nil {
		t.Errorf("the living writer was swept: %v", err)
	}
}

// A power cut between Commit and Sync: the name is there, the bytes are not.
func TestUnsyncedContentIsCheckedAfterAReboot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	good, torn := put(t, s, "good"), put(t, s, "torn")
	mark := filepath.Join(dir, "unsynced")
	var boot string
	if err := record.Load(mark, &boot); err != nil || boot == "" {
		t.Fatalf("boot %q, %v", boot, err)
	}
	if err := record.Save(mark, "another boot"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sha256", torn.Encoded())
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if !s.Has(good) || s.Has(torn) {
		t.Errorf("good %v, torn %v", s.Has(good), s.Has(torn))
	}
	if _, err := os.Lstat(mark); err == nil {
		t.Error("the mark is still there")
	}
}

func TestSyncEndsTheDoubt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "x")
	mark := filepath.Join(dir, "unsynced")
	if _, err := os.Lstat(mark); err != nil {
		t.Fatalf("no mark over unsynced content: %v", err)
	}
	if err := errors.Join(s.Sync(), s.Sync()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(mark); err == nil {
		t.Error("the mark outlives Sync")
	}
	put(t, s, "y")
	if _, err := os.Lstat(mark); err != nil {
		t.Errorf("no mark over newer content: %v", err)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := put(t, s, "hello")
	if err := os.WriteFile(filepath.Join(dir, "sha256", d.Encoded()), []byte("hellO"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(d); !errors.Is(err, fault.Corrupt) {
		t.Errorf("error %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	s := open(b, b.TempDir())
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	b.SetBytes(20 << 20)
	for b.Loop() {
		w, err := s.Create()
		if err != nil {
			b.Fatal(err)
		}
		for range 20 {
			if _, err := w.Write(chunk); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Commit("", -1); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFilesAreListedByWhatTheyAre(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := put(t, s, strings.Repeat("x", 10_000))
	part := digest.FromString("part")
	w, _, err := s.Resume(part)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "some")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	alive, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	io.WriteString(alive, "x")
	old := time.Now().Add(-time.Minute)
	for _, name := range []string{"ingest/new-dead", "sha256/odd"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	content, err := s.Files()
	if err != nil || len(content) != 1 || content[0].Digest != d || content[0].Disk < 10_000 {
		t.Errorf("content: %+v, %v", content, err)
	}
	if partials, err := s.Partials(); err != nil || len(partials) != 3 {
		t.Errorf("partials: %+v, %v", partials, err)
	}
	strays, err := s.Strays()
	if err != nil || len(strays) != 2 {
		t.Fatalf("strays: %+v, %v", strays, err)
	}
	for _, one := range strays {
		if err := s.Drop(one); err != nil {
			t.Error(err)
		}
	}
	if err := s.Drop(content[0]); !errors.Is(err, fault.Conflict) {
		t.Errorf("content was dropped: %v", err)
	}
	if left, err := s.Strays(); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	if _, at, err := s.Resume(part); err != nil || at != 4 {
		t.Errorf("the download goes on at %d, %v", at, err)
	}
}
