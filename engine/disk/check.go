package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"berth/fault"
	"berth/image"
	"berth/union"

	"github.com/opencontainers/go-digest"
)

// CheckOptions say how hard Check looks and whether it mends.
type CheckOptions struct {
	Repair bool
	Deep   bool // compare every layer's files with its blob
	Auth   Auth // whom repositories are asked as for what must be fetched again; nil: anonymous
}

// Finding is one thing that is wrong.
type Finding struct {
	Kind     string
	Object   string // digest, path or name
	Cause    string
	Images   []string `json:",omitempty"` // familiar names of the images concerned
	Size     int64    `json:",omitempty"` // allocated bytes that a repair frees
	Leftover bool     `json:",omitempty"` // it only takes space
	Repaired string   `json:",omitempty"` // what was done; "": nothing
	Advice   string   `json:",omitempty"` // what the user can do, when nothing was done
}

// The kinds of findings.
const (
	DamagedBlob   = "damaged blob"
	MissingBlob   = "missing blob"
	DamagedLayer  = "damaged layer"
	MissingLayer  = "missing layer"
	DamagedImage  = "damaged image"  // a name that leads to nothing whole
	DamagedRecord = "damaged record" // of a container, a volume or the images' names
	Unreferenced  = "unreferenced content"
	Stray         = "stray file"
)

// Checking is one step of a check under way; one of the fields is set.
type Checking struct {
	Stage   string   `json:",omitempty"` // what is looked at
	Done    int64    `json:",omitempty"` // of Total
	Total   int64    `json:",omitempty"`
	Finding *Finding `json:",omitempty"`
	Summary *Summary `json:",omitempty"` // the last one
}

// Summary is how a check ended.
type Summary struct {
	Blobs, Layers, Images, Containers, Volumes int64 // looked at
	Problems                                   int64 // found, leftovers left out
	Repaired                                   int64 // of the problems
	Leftovers                                  int64
	LeftoverSize                               int64 // allocated bytes of the leftovers
	Freed                                      int64 // of these
	Clean                                      bool  // no problem is left
}

// check is one run.
type check struct {
	s       *Service
	o       CheckOptions
	tell    func(Checking)
	sum     Summary
	bad     map[digest.Digest]string // blobs that are damaged or missing, and why
	renewed map[digest.Digest]bool   // images whose content was mended
	silent  map[string]error         // repositories that don't answer
}

// Check looks at all that the data root has and tells what is wrong; with repair set it mends what can be mended without loss. The engine goes on
// meanwhile. What is under way is no finding. fault.Conflict: another check is at work.
func (s *Service) Check(ctx context.Context, o CheckOptions, tell func(Checking)) error {
	if !s.checks.TryLock() {
		return fault.New(fault.Conflict, "a check is already running")
	}
	c, err := s.check(ctx, o, tell)
	s.checks.Unlock() // whoever reads the summary may ask for the next check
	if err == nil {
		tell(Checking{Summary: &c.sum})
	}
	return err
}

func (s *Service) check(ctx context.Context, o CheckOptions, tell func(Checking)) (*check, error) {
	s.Settle()
	c := &check{s: s, o: o, tell: tell, bad: map[digest.Digest]string{}, renewed: map[digest.Digest]bool{}, silent: map[string]error{}}
	for _, stage := range []func(context.Context) error{c.records, c.blobs, c.layers, c.images, c.leftovers} {
		if err := stage(ctx); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, fault.Wrap(fault.Canceled, err)
		}
	}
	c.sum.Clean = c.sum.Problems == c.sum.Repaired
	return c, nil
}

// found tells a finding. mend does what can be done about it and says what that was.
func (c *check) found(f Finding, mend func() (done string, err error)) {
	if c.o.Repair && mend != nil {
		done, err := mend()
		switch {
		case err != nil && f.Advice == "":
			f.Advice = err.Error()
		case err != nil:
			f.Advice = err.Error() + "; " + f.Advice
		default:
			f.Repaired, f.Advice = done, ""
		}
	} else if !c.o.Repair && mend != nil {
		f.Advice = "check again with --repair"
	}
	if f.Leftover {
		c.sum.Leftovers++
		c.sum.LeftoverSize += f.Size
		if f.Repaired != "" {
			c.sum.Freed += f.Size
		}
	} else {
		c.sum.Problems++
		if f.Repaired != "" {
			c.sum.Repaired++
		}
	}
	c.tell(Checking{Finding: &f})
}

func (c *check) stage(name string, done, total int64) {
	c.tell(Checking{Stage: name, Done: done, Total: total})
}

// familiar are an image's names as users write them, digest references only when there are no others.
func familiar(p image.Part) []string {
	names := image.Familiar(p.Names)
	tags := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return strings.Contains(n, "@") })
	switch {
	case len(tags) > 0:
		return tags
	case len(names) > 0:
		return names
	}
	return []string{shortID(p.Image)}
}

func shortID(d digest.Digest) string {
	s := d.Encoded()
	return s[:min(12, len(s))]
}

// blobs compares all content with its digests, and looks for what images lack. What was fetched again may name more: it is looked at too.
func (c *check) blobs(ctx context.Context) error {
	seen := map[digest.Digest]bool{}
	for {
		parts := image.Parts(c.s.store())
		files, err := c.s.Blobs.Files()
		if err != nil {
			return err
		}
		users := map[digest.Digest][]image.Part{}
		for _, p := range parts {
			users[p.Desc.Digest] = append(users[p.Desc.Digest], p)
		}
		news := false
		for k, f := range files {
			if err := ctx.Err(); err != nil {
				return fault.Wrap(fault.Canceled, err)
			}
			if seen[f.Digest] {
				continue
			}
			seen[f.Digest] = true
			c.stage("blobs", int64(k), int64(len(files)))
			c.sum.Blobs++
			if err := c.s.Blobs.Verify(f.Digest); err != nil && fault.Of(err) != fault.NotFound {
				news = c.badBlob(ctx, DamagedBlob, err.Error(), f.Digest, f.Disk, users[f.Digest]) || news
			}
		}
		for _, p := range parts {
			if seen[p.Desc.Digest] || !p.Needed || c.s.Blobs.Has(p.Desc.Digest) {
				continue
			}
			seen[p.Desc.Digest] = true
			news = c.badBlob(ctx, MissingBlob, "it is not in the store", p.Desc.Digest, 0, users[p.Desc.Digest]) || news
		}
		if !news {
			return nil
		}
	}
}

// badBlob handles one blob that is damaged or missing, and tells whether it is mended.
func (c *check) badBlob(ctx context.Context, kind, cause string, d digest.Digest, size int64, users []image.Part) (mended bool) {
	f := Finding{Kind: kind, Object: d.String(), Cause: cause}
	if len(users) == 0 {
		f.Leftover, f.Size = true, size
		c.found(f, func() (string, error) { return "removed", c.s.Blobs.Remove(d) })
		return false
	}
	if !c.stillNeeded(d) {
		return false // its images went meanwhile
	}
	c.bad[d] = kind
	for _, p := range users {
		for _, n := range familiar(p) {
			if !slices.Contains(f.Images, n) {
				f.Images = append(f.Images, n)
			}
		}
	}
	f.Advice = fmt.Sprintf("pull or load %s again, or remove it", strings.Join(f.Images, ", "))
	c.found(f, func() (string, error) {
		var err error
		for _, p := range users {
			if err = c.refetch(ctx, p); err == nil {
				break
			}
		}
		if err != nil {
			return "", err
		}
		delete(c.bad, d)
		for _, p := range users {
			c.renewed[p.Image] = true
		}
		mended = true
		return "fetched again", nil
	})
	return mended
}

func (c *check) stillNeeded(d digest.Digest) bool {
	return slices.ContainsFunc(image.Parts(c.s.store()), func(p image.Part) bool { return p.Desc.Digest == d })
}

// layers looks at the unpacked layers, those below first.
func (c *check) layers(ctx context.Context) error {
	parts := map[digest.Digest]image.Part{}
	users := map[digest.Digest][]string{}
	for _, p := range image.Parts(c.s.store()) {
		if p.Chain == "" {
			continue
		}
		if _, known := parts[p.Chain]; !known || c.s.Blobs.Has(p.Desc.Digest) {
			parts[p.Chain] = p
		}
		for _, n := range familiar(p) {
			if !slices.Contains(users[p.Chain], n) {
				users[p.Chain] = append(users[p.Chain], n)
			}
		}
	}
	layers, err := c.s.Layers.Layers()
	if err != nil {
		return err
	}
	sizes := c.s.knownSizes()
	for k, l := range layers {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		c.stage("layers", int64(k), int64(len(layers)))
		c.sum.Layers++
		p, known := parts[l.Chain]
		if c.bad[p.Desc.Digest] != "" {
			known = false // there is nothing to compare with
		}
		kind, cause := c.glance(l, sizes[l.Chain])
		if cause == "" && c.o.Deep && known {
			if cause, err = c.renew(ctx, l.Chain, p, false); err != nil {
				cause = err.Error()
			}
		}
		if cause == "" || !c.s.Layers.Has(l.Chain) || p.Chain != "" && !c.stillNeeded(p.Desc.Digest) { // gone meanwhile
			continue
		}
		f := Finding{Kind: kind, Object: l.Chain.String(), Cause: cause, Images: users[l.Chain]}
		if !known {
			f.Advice = "its blob is not here to unpack it from: pull or load the image again, or remove what uses the layer"
			c.found(f, nil)
			continue
		}
		c.found(f, func() (string, error) { return c.remake(ctx, l.Chain, p) })
	}
	return nil
}

// glance looks at a layer without reading its files: their number and sizes are as they were.
func (c *check) glance(l union.Layer, measured layerSize) (kind, cause string) {
	space, err := c.s.inventory().Measure(l.Chain)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return MissingLayer, "its directory is gone"
	case err != nil:
		return DamagedLayer, err.Error()
	case space.Shown != l.Size:
		return DamagedLayer, fmt.Sprintf("its files have %d bytes instead of %d", space.Shown, l.Size)
	}
	inode, err := inodeOf(c.s.inventory().Dir(l.Chain))
	if err == nil && inode == measured.Inode && space.Files != measured.Files {
		return DamagedLayer, fmt.Sprintf("it has %d files instead of %d", space.Files, measured.Files)
	}
	return DamagedLayer, ""
}

// remake unpacks a layer again and puts it in its place, unless a container runs on it.
func (c *check) remake(ctx context.Context, chain digest.Digest, p image.Part) (string, error) {
	if names := c.runningOn(chain); len(names) > 0 {
		return "", fault.New(fault.Conflict, "containers run on it: stop %s, and check again with --repair", strings.Join(names, ", "))
	}
	difference, err := c.renew(ctx, chain, p, true)
	if err != nil {
		return "", err
	}
	c.renewed[p.Image] = true
	c.s.forget(chain)
	if difference == "" {
		return "it is all right, compared with its blob", nil
	}
	return "unpacked again", nil
}

func (c *check) renew(ctx context.Context, chain digest.Digest, p image.Part, replace bool) (string, error) {
	stage, u, err := image.Restage(ctx, c.s.store(), p)
	if err != nil {
		return "", err
	}
	return c.s.inventory().Renew(chain, stage, u, replace)
}

// runningOn lists the containers that run on a layer.
func (c *check) runningOn(chain digest.Digest) (names []string) {
	alive := map[string]string{}
	for _, one := range c.s.Containers() {
		if one.Alive {
			alive[one.ID] = one.Name
		}
	}
	all, err := c.s.inventory().Places()
	if err != nil {
		return []string{"all containers"}
	}
	layers, _ := c.s.Layers.Layers()
	parent := map[digest.Digest]digest.Digest{}
	for _, l := range layers {
		parent[l.Chain] = l.Parent
	}
	for _, p := range all {
		name, runs := alive[p.Name]
		if p.Kind != union.RootPlace || !runs {
			continue
		}
		for at := p.Below(); at != ""; at = parent[at] {
			if at == chain {
				names = append(names, name)
				break
			}
		}
	}
	slices.Sort(names)
	return names
}

// images looks for names that lead to nothing whole, after content and layers were mended.
func (c *check) images(ctx context.Context) error {
	c.stage("images", 0, 0)
	if c.o.Repair {
		var ids []digest.Digest
		for id := range c.renewed {
			ids = append(ids, id)
		}
		// What stays broken is told below.
		_ = image.Refresh(ctx, c.s.store(), ids)
	}
	holdings, _ := image.Holdings(c.s.store())
	broken := c.s.store().Broken()
	for _, h := range holdings {
		c.sum.Images++
		if h.Shown {
			continue
		}
		p := image.Part{Image: h.ID, Names: h.Names}
		f := Finding{Kind: DamagedImage, Object: h.ID.String(), Images: familiar(p), Cause: "content of it is missing or damaged"}
		for _, err := range broken {
			if strings.Contains(err.Error(), h.ID.String()) {
				f.Cause = err.Error()
			}
		}
		f.Advice = fmt.Sprintf("pull or load %s again, or remove it with 'rmi'", strings.Join(f.Images, ", "))
		c.found(f, nil)
	}
	return nil
}
