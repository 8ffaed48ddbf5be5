package disk

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"berth/fault"
	"berth/internal/record"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// sizes remembers what layers take, as they never change: measuring a tree of a hundred thousand files takes a while.
type sizes struct {
	mu    sync.Mutex
	known map[digest.Digest]layerSize // nil: not read yet
}

// layerSize is what was measured of a layer.
type layerSize struct {
	Inode uint64 `json:"inode"` // of its directory: one that was put in its place is another
	Disk  int64  `json:"disk"`  // allocated bytes, with all that belongs to it
	Files int64  `json:"files"`
}

// sizesFile holds the sizes of layers. Losing it costs time.
const sizesFile = "layer-sizes.json"

type sizesRecord struct {
	Version int                         `json:"version"`
	Layers  map[digest.Digest]layerSize `json:"layers"`
}

const sizesVersion = 1

// layerSizes measures the layers that were not measured before. What can't be measured is left out.
func (s *Service) layerSizes() (map[digest.Digest]layerSize, error) {
	s.sizes.mu.Lock()
	defer s.sizes.mu.Unlock()
	path := filepath.Join(s.Root, sizesFile)
	if s.sizes.known == nil {
		s.sizes.read(path)
	}
	layers, err := s.Layers.Layers()
	if err != nil {
		return nil, err
	}
	now := make(map[digest.Digest]layerSize, len(layers))
	changed := len(layers) != len(s.sizes.known)
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range layers {
		dir := s.inventory().Dir(l.Chain)
		inode, err := inodeOf(dir)
		if err != nil {
			continue // a check will tell
		}
		have, ok := s.sizes.known[l.Chain]
		if ok && have.Inode == inode {
			mu.Lock()
			now[l.Chain] = have
			mu.Unlock()
			continue
		}
		changed = true
		group.Go(func() error {
			space, err := s.inventory().Measure(l.Chain)
			if err != nil {
				return nil // it goes just now
			}
			mu.Lock()
			defer mu.Unlock()
			now[l.Chain] = layerSize{Inode: inode, Disk: space.Disk, Files: space.Files}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	s.sizes.known = now
	if changed {
		return now, record.Put(path, sizesRecord{sizesVersion, now})
	}
	return now, nil
}

func inodeOf(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fault.New(fault.Unsupported, "%s: no inode number", path)
	}
	return st.Ino, nil
}

// allocated is what a file takes on the disk.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// knownSizes are those of the layers that were measured at some time.
func (s *Service) knownSizes() map[digest.Digest]layerSize {
	s.sizes.mu.Lock()
	defer s.sizes.mu.Unlock()
	if s.sizes.known == nil {
		s.sizes.read(filepath.Join(s.Root, sizesFile))
	}
	return maps.Clone(s.sizes.known)
}

// forget makes a layer be measured again.
func (s *Service) forget(chain digest.Digest) {
	s.sizes.mu.Lock()
	defer s.sizes.mu.Unlock()
	delete(s.sizes.known, chain)
}

// read takes what the file says; without it all is measured again.
func (s *sizes) read(path string) {
	r := sizesRecord{}
	s.known = map[digest.Digest]layerSize{}
	if record.Load(path, &r) == nil && r.Version == sizesVersion && r.Layers != nil {
		s.known = r.Layers
	}
}
