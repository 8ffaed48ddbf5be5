package layers

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
	"berth/union"
)

// Comparison is what is known of two images before their files are compared.
type Comparison struct {
	From   string // ID
	To     string // ID
	Config []Setting
}

// Difference is a path that two images do not have in common.
type Difference struct {
	Path   string
	Change Change   // Added: only the second image has it; Deleted: only the first
	What   []string `json:",omitempty"` // of a changed one: type, content, mode, owner, link, device, attributes
	From   *Shape   `json:",omitempty"`
	To     *Shape   `json:",omitempty"`
}

// Shape is what a path is in one image.
type Shape struct {
	Mode uint32 // type and permissions, as st_mode in inode(7)
	UID  uint32
	GID  uint32
	Size int64  `json:",omitempty"` // of a regular file, in bytes
	Link string `json:",omitempty"` // where a symbolic link points to
}

// Totals sum up differences. Directories count as no files.
type Totals struct {
	Added   Sum
	Removed Sum
	Changed Sum // with the sizes in the second image
}

// Diff compares the images ref and to, as containers see them: start is told first, then tell of each path that differs, sorted. Times alone are no
// difference. What lies in layers that both stand on is not read.
func (e *Explorer) Diff(ctx context.Context, ref, to string, platform *ocispec.Platform, start func(Comparison) error, tell func(Difference) error) (t Totals, err error) {
	a, err := e.open(ref, platform)
	if err != nil {
		return t, err
	}
	defer a.end(&err)
	b, err := e.open(to, platform)
	if err != nil {
		return t, err
	}
	defer b.end(&err)
	if err := start(Comparison{From: a.ID.String(), To: b.ID.String(), Config: settings(a.Config, b.Config)}); err != nil {
		return t, err
	}
	return compare(ctx, side{a.stack, a.DiffIDs}, side{b.stack, b.DiffIDs}, tell)
}

func compare(ctx context.Context, a, b side, tell func(Difference) error) (t Totals, err error) {
	c := &comparer{ctx: ctx, a: a, b: b, tell: func(d Difference) error {
		t.add(d)
		return tell(d)
	}}
	return t, c.dir(".", all(a.Len()), all(b.Len()))
}

func (t *Totals) add(d Difference) {
	const dir, mask = 0o040000, 0o170000
	switch {
	case d.Change == Added && d.To.Mode&mask != dir:
		t.Added.add(d.To.Size)
	case d.Change == Deleted && d.From.Mode&mask != dir:
		t.Removed.add(d.From.Size)
	case d.Change == Changed && (d.To.Mode&mask != dir || d.From.Mode&mask != dir):
		t.Changed.add(d.To.Size)
	}
}

// all lists n layers, the topmost first.
func all(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = n - 1 - i
	}
	return list
}

// side is one of two images that are compared.
type side struct {
	*union.Stack
	diffIDs []digest.Digest
}

// seen is a name as an image shows it.
type seen struct {
	union.Entry
	layer int   // that has it
	below []int // of a directory: the layers that have it, topmost first
	ends  bool  // no deeper layer adds to it
}

// names lists what a directory shows that the given layers have, topmost first.
func (s side) names(ctx context.Context, dir string, layers []int) (map[string]*seen, error) {
	found := map[string]*seen{}
	for _, l := range layers {
		list, opaque, err := s.ReadDir(ctx, l, dir)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			have := found[e.Name]
			switch {
			case have == nil:
				n := &seen{Entry: e, layer: l, ends: !e.IsDir()}
				if e.IsDir() {
					n.below = []int{l}
				}
				found[e.Name] = n
			case !have.ends && e.IsDir():
				have.below = append(have.below, l)
			default:
				have.ends = true
			}
		}
		if opaque {
			break
		}
	}
	maps.DeleteFunc(found, func(_ string, n *seen) bool { return n.Whiteout() })
	return found, nil
}

func (s side) shape(p string, n *seen) (*Shape, error) {
	sh := &Shape{Mode: n.Mode, UID: n.UID, GID: n.GID, Size: n.Size}
	var err error
	if n.IsLink() {
		sh.Link, err = s.Readlink(n.layer, p)
	}
	return sh, err
}

// comparer walks two images side by side.
type comparer struct {
	ctx  context.Context
	a, b side
	tell func(Difference) error
}

// dir compares a directory that both have, each in the given layers.
func (c *comparer) dir(dir string, inA, inB []int) error {
	if err := c.ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, err)
	}
	if slices.EqualFunc(inA, inB, func(i, k int) bool { return c.a.Chain(i) == c.b.Chain(k) }) {
		return nil
	}
	a, err := c.a.names(c.ctx, dir, inA)
	if err != nil {
		return err
	}
	b, err := c.b.names(c.ctx, dir, inB)
	if err != nil {
		return err
	}
	names := slices.Collect(maps.Keys(a))
	for n := range b {
		if a[n] == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if err := c.name(path.Join(dir, n), a[n], b[n]); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparer) name(p string, a, b *seen) error {
	switch {
	case b == nil:
		return c.only(c.a, p, a, Deleted)
	case a == nil:
		return c.only(c.b, p, b, Added)
	}
	what, err := c.differ(p, a, b)
	if err != nil {
		return err
	}
	if len(what) > 0 {
		d := Difference{Path: "/" + p, Change: Changed, What: what}
		if d.From, err = c.a.shape(p, a); err != nil {
			return err
		}
		if d.To, err = c.b.shape(p, b); err != nil {
			return err
		}
		if err := c.tell(d); err != nil {
			return err
		}
	}
	switch {
	case a.IsDir() && b.IsDir():
		return c.dir(p, a.below, b.below)
	case a.IsDir():
		return c.inside(c.a, p, a, Deleted)
	case b.IsDir():
		return c.inside(c.b, p, b, Added)
	}
	return nil
}

// only tells of a path that one image has, with all below it.
func (c *comparer) only(s side, p string, n *seen, change Change) error {
	sh, err := s.shape(p, n)
	if err != nil {
		return err
	}
	d := Difference{Path: "/" + p, Change: change}
	if change == Added {
		d.To = sh
	} else {
		d.From = sh
	}
	if err := c.tell(d); err != nil || !n.IsDir() {
		return err
	}
	return c.inside(s, p, n, change)
}

func (c *comparer) inside(s side, dir string, n *seen, change Change) error {
	found, err := s.names(c.ctx, dir, n.below)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if err := c.only(s, path.Join(dir, name), found[name], change); err != nil {
			return err
		}
	}
	return nil
}

// differ lists in what a path differs.
func (c *comparer) differ(p string, a, b *seen) (what []string, err error) {
	if c.a.Chain(a.layer) == c.b.Chain(b.layer) {
		return nil, nil // the same file
	}
	const permissions = 0o7777
	if (a.Mode^b.Mode)&^permissions != 0 {
		return []string{"type"}, nil
	}
	same, err := c.sameContent(p, a, b)
	if err != nil {
		return nil, err
	}
	if !same {
		what = append(what, "content")
	}
	if a.Mode != b.Mode {
		what = append(what, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		what = append(what, "owner")
	}
	if a.Device != b.Device {
		what = append(what, "device")
	}
	if a.IsLink() {
		from, err := c.a.Readlink(a.layer, p)
		if err != nil {
			return nil, err
		}
		to, err := c.b.Readlink(b.layer, p)
		if err != nil {
			return nil, err
		}
		if from != to {
			what = append(what, "link")
		}
	}
	from, err := c.a.Attributes(a.layer, p)
	if err != nil {
		return nil, err
	}
	to, err := c.b.Attributes(b.layer, p)
	if err != nil {
		return nil, err
	}
	if !maps.Equal(from, to) {
		what = append(what, "attributes")
	}
	return what, nil
}

// sameContent compares regular files. Two layers from one tar have the same ones, wherever in their image they lie.
func (c *comparer) sameContent(p string, a, b *seen) (same bool, err error) {
	switch {
	case !a.IsRegular():
		return true, nil
	case a.Size != b.Size:
		return false, nil
	case a.Size == 0, c.a.diffIDs[a.layer] == c.b.diffIDs[b.layer] && a.Modified.Equal(b.Modified):
		return true, nil
	}
	from, err := c.a.Open(a.layer, p)
	if err != nil {
		return false, err
	}
	defer fault.Close(from, &err)
	to, err := c.b.Open(b.layer, p)
	if err != nil {
		return false, err
	}
	defer fault.Close(to, &err)
	return sameBytes(c.ctx, from, to)
}

// sameBytes compares two files to their ends.
func sameBytes(ctx context.Context, a, b *os.File) (bool, error) {
	const chunk = 128 << 10
	x, y := make([]byte, chunk), make([]byte, chunk)
	for {
		if err := ctx.Err(); err != nil {
			return false, fault.Wrap(fault.Canceled, err)
		}
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		if errA != nil || errB != nil {
			return (errA == nil) == (errB == nil), nil
		}
	}
}
