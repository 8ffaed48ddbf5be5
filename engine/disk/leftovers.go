package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/container"
	"berth/fault"
	"berth/image"
	"berth/registry"
	"berth/union"

	"github.com/opencontainers/go-digest"
)

// refetch brings a blob again from the repositories of an image. One that did not answer once is not asked again.
func (c *check) refetch(ctx context.Context, p image.Part) error {
	err := error(fault.New(fault.NotFound, "the image has no repository that it could come from"))
	for _, name := range image.Repositories(p) {
		if err = c.silent[name.Name()]; err != nil {
			continue
		}
		var auth registry.Auth
		if c.o.Auth != nil {
			auth = c.o.Auth(name)
		}
		err = image.Refetch(ctx, c.s.store(), c.s.Images.Registry.Repository(name, auth), p.Desc)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err = fmt.Errorf("fetch from %s: %w", name.Name(), err); fault.Of(err) == fault.Unavailable {
			c.silent[name.Name()] = err
		}
	}
	return err
}

// records reads what is recorded of containers, volumes and names.
func (c *check) records(ctx context.Context) error {
	c.stage("records", 0, 0)
	if err := image.CheckNames(c.s.store()); err != nil {
		c.found(Finding{Kind: DamagedRecord, Object: "images.json", Cause: err.Error()}, func() (string, error) {
			return "written again from memory", image.Refresh(ctx, c.s.store(), nil)
		})
	}
	ids, err := c.s.Records.List()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, one := range c.s.Containers() {
		known[one.ID] = true
		if !slices.Contains(ids, one.ID) {
			ids = append(ids, one.ID)
		}
	}
	var bare []string
	for _, id := range ids {
		c.sum.Containers++
		_, err := c.s.Records.Load(id)
		switch {
		case errors.Is(err, fault.NotFound) && !known[id]:
			c.sum.Containers--
			bare = append(bare, id)
		case errors.Is(err, fault.NotFound) && !c.s.Kept(id): // removed meanwhile
		case err != nil && known[id]:
			c.found(Finding{Kind: DamagedRecord, Object: "container " + container.ShortID(id), Cause: err.Error()}, func() (string, error) {
				return "written again from memory", c.s.Rewrite(id)
			})
		case err != nil:
			c.found(Finding{Kind: DamagedRecord, Object: "container " + container.ShortID(id), Cause: err.Error(),
				Advice: "restore " + c.s.Records.Dir(id) + "/record.json, or remove that directory and " + filepath.Join(c.s.Root, "layers/roots", id)}, nil)
		}
	}
	c.bareContainers(bare)
	return c.volumes()
}

// bareContainers are directories of containers without a record, which a removal or a creation left that died.
func (c *check) bareContainers(ids []string) {
	c.s.Settle() // a removal under way takes the record first
	for _, id := range ids {
		dir := c.s.Records.Dir(id)
		if _, err := c.s.Records.Load(id); !errors.Is(err, fault.NotFound) || c.s.Making(id) {
			continue
		}
		space, err := union.Measure(dir, nil)
		if err != nil {
			continue
		}
		c.found(Finding{Kind: Stray, Object: dir, Cause: "no container has it", Size: space.Disk, Leftover: true}, func() (string, error) {
			if c.s.Making(id) {
				return "", fault.New(fault.Conflict, "a container is being made there")
			}
			return "removed", c.s.Records.Delete(id)
		})
	}
}

func (c *check) volumes() error {
	list, _ := c.s.Volumes.List()
	c.sum.Volumes += int64(len(list))
	strays, err := c.s.Volumes.Strays()
	if err != nil {
		return err
	}
	for _, one := range strays {
		if one.Name == "" {
			space, err := union.Measure(one.Path, nil)
			if err != nil {
				continue
			}
			c.found(Finding{Kind: Stray, Object: one.Path, Cause: "a volume's creation or removal left it", Size: space.Disk, Leftover: true}, func() (string, error) {
				return "removed", c.s.Volumes.Drop(one)
			})
			continue
		}
		c.sum.Volumes++
		c.found(Finding{Kind: DamagedRecord, Object: "volume " + one.Name, Cause: one.Cause.Error()}, func() (string, error) {
			return "its record was made anew: the content stays, labels are lost", c.s.Volumes.Adopt(one)
		})
	}
	return nil
}

// leftovers looks for what nobody needs.
func (c *check) leftovers(ctx context.Context) error {
	c.stage("leftovers", 0, 0)
	if err := c.unreferenced(ctx); err != nil {
		return err
	}
	strays, err := c.s.Blobs.Strays()
	if err != nil {
		return err
	}
	for _, f := range strays {
		c.found(Finding{Kind: Stray, Object: f.Path, Cause: "an unfinished download that nothing continues", Size: f.Disk, Leftover: true},
			func() (string, error) { return "removed", c.s.Blobs.Drop(f) })
	}
	if err := c.places(ctx); err != nil {
		return err
	}
	c.temporary()
	if !c.o.Repair {
		return nil
	}
	return c.s.inventory().Settle(ctx)
}

// unreferenced is content that no image, container or operation under way has, such as what failed pulls left.
func (c *check) unreferenced(ctx context.Context) error {
	f := Finding{Kind: Unreferenced, Object: "blobs and layers", Leftover: true}
	first, err := c.unheld()
	if err != nil || len(first) == 0 {
		return err
	}
	second, err := c.unheld() // not what is being freed just now
	if err != nil {
		return err
	}
	for d, size := range second {
		if _, both := first[d]; !both {
			delete(second, d)
		} else {
			f.Size += size
		}
	}
	if len(second) == 0 {
		return nil
	}
	f.Cause = "no image, container or pull under way refers to them"
	c.found(f, func() (string, error) {
		_, err := c.s.store().Sweep(ctx)
		return "removed", err
	})
	return nil
}

// unheld is the content that nobody has, and what it takes.
func (c *check) unheld() (map[digest.Digest]int64, error) {
	look, err := c.s.look()
	if err != nil {
		return nil, err
	}
	held := map[digest.Digest]bool{}
	for _, h := range look.holdings {
		for d := range content(h) {
			held[d] = true
		}
	}
	sizes := map[digest.Digest]int64{}
	look.each(func(d digest.Digest) {
		if !held[d] && !look.claimed[d] && !look.standing[d] {
			sizes[d] = look.size(d)
		}
	})
	return sizes, nil
}

// slow is how long the making of a container may take at most before what it leaves counts as nobody's.
const slow = 10 * time.Minute

// places looks at the directories of the layers' driver.
func (c *check) places(ctx context.Context) error {
	all, err := c.s.inventory().Places()
	if err != nil {
		return err
	}
	if err := c.s.inventory().Settle(ctx); err != nil { // what is in the trash until now has its time
		return err
	}
	known := map[string]bool{}
	for _, one := range c.s.Containers() {
		known[one.ID] = true
	}
	for _, p := range all {
		f := Finding{Kind: Stray, Object: p.Path, Leftover: true}
		mend := func() (string, error) { return "removed", c.s.inventory().Drop(p) }
		switch {
		case p.Stray:
			f.Cause = "nothing refers to this " + string(p.Kind) + " directory"
		case p.Kind == union.TrashPlace:
			f.Cause, mend = "it can't be removed", nil
			f.Advice = "look for files with the immutable attribute (lsattr -R)"
		case p.Kind == union.RootPlace && !known[p.Name] && !c.s.Making(p.Name) && older(p.Path, slow):
			f.Cause = "its container is gone"
			mend = func() (string, error) { return "removed", c.s.Layers.Delete(p.Name) }
		default:
			continue
		}
		if f.Size, err = p.Size(); err != nil {
			continue
		}
		c.found(f, mend)
	}
	return nil
}

func older(path string, than time.Duration) bool {
	info, err := os.Lstat(path)
	return err == nil && time.Since(info.ModTime()) > than
}

// temporary are the unfinished files of writers that died; a living one needs them for an instant.
func (c *check) temporary() {
	dirs := []string{c.s.Root}
	for _, d := range []string{"images", "network", "blobs", "containers/*", "volumes/*"} {
		found, _ := filepath.Glob(filepath.Join(c.s.Root, d))
		dirs = append(dirs, found...)
	}
	home := union.Home(c.s.Root, c.s.Layers.Name())
	found, _ := filepath.Glob(filepath.Join(home, "layers", "*"))
	dirs = append(append(dirs, home), found...)
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if !strings.Contains(e.Name(), ".tmp-") || !e.Type().IsRegular() || !older(path, time.Minute) {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue
			}
			c.found(Finding{Kind: Stray, Object: path, Cause: "a record's writer died", Size: allocated(info), Leftover: true},
				func() (string, error) { return "removed", os.Remove(path) })
		}
	}
}
