package build

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"berth/archive"
	"berth/build/dockerfile"
	"berth/fault"
)

// named lists what a source of a Copy names below root. Of --parents, what stands before "/./" is not part of the names.
func named(root *os.File, src *dockerfile.Source, parents bool) (all []found, err error) {
	before, after := "", src.Path
	if parents {
		if b, a, ok := strings.Cut(src.Path, "/./"); ok {
			before, after = b, a
		}
	}
	if !parents {
		paths, err := archive.GlobAll(root, after)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			if all, err = with(all, root, src, "/", p); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	pivots, err := archive.GlobAll(root, before)
	if err != nil {
		return nil, err
	}
	for _, pivot := range pivots {
		names, err := below(root, pivot, strings.Split(path.Clean("/" + after)[1:], "/"))
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if all, err = with(all, root, src, pivot, path.Join(pivot, name)); err != nil {
				return nil, err
			}
			all[len(all)-1].name = name
		}
	}
	return all, nil
}

// with adds what p names; a link stands for what it leads to.
func with(all []found, root *os.File, src *dockerfile.Source, pivot, p string) ([]found, error) {
	real, err := archive.Resolve(root, p)
	if err != nil {
		return nil, err
	}
	return append(all, found{source: src, root: root, path: real, name: path.Base(p), pivot: pivot, dir: isDir(root, real)}), nil
}

// below lists the names below dir that a pattern fits, part by part: ** stands for any directories, also none, and at the end for all there is.
func below(root *os.File, dir string, parts []string) (names []string, err error) {
	part, rest := parts[0], parts[1:]
	if part == "" {
		return []string{""}, nil
	}
	if _, err := path.Match(part, ""); err != nil {
		return nil, fault.New(fault.Invalid, "pattern %q: %w", part, err)
	}
	var here []string
	switch {
	case part == "**" && len(rest) == 0:
		part = "*"
	case part == "**":
		if names, err = below(root, dir, rest); err != nil {
			return nil, err
		}
	}
	if archive.IsPattern(part) {
		if here, err = entries(root, dir); err != nil {
			return nil, err
		}
	} else if _, _, err := archive.Stat(root, path.Join(dir, part)); err == nil {
		here = []string{part}
	}
	for _, name := range here {
		next := rest
		if part == "**" {
			next = parts
			if info, _, err := archive.Stat(root, path.Join(dir, name)); err != nil || !info.IsDir() {
				continue // links are not followed: they may lead back
			}
		} else if ok, _ := path.Match(part, name); !ok && archive.IsPattern(part) {
			continue
		}
		if len(next) == 0 {
			names = append(names, name)
			continue
		}
		deeper, err := below(root, path.Join(dir, name), next)
		if err != nil {
			return nil, err
		}
		for _, d := range deeper {
			names = append(names, path.Join(name, d))
		}
	}
	return names, nil
}

// entries lists a directory; what is none has no entries.
func entries(root *os.File, dir string) ([]string, error) {
	f, err := archive.OpenDir(root, dir)
	if err != nil {
		return nil, nil
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// excluded tells whether --exclude leaves out name, which is below f, or f itself when it is "". Patterns are about names below a source, and
// with --parents about what they become.
func (b *bringing) excluded(f found, name string, failed *error) bool {
	if b.exclude == nil {
		return false
	}
	tries := []string{name}
	switch {
	case b.do.Parents:
		tries[0] = path.Join(f.name, name)
	case name == "" && !f.dir:
		tries = []string{f.name, strings.TrimPrefix(f.path, "/")}
	}
	return slices.ContainsFunc(tries, func(p string) bool {
		if p == "" {
			return false
		}
		out, err := b.exclude.MatchesOrParentMatches(p)
		*failed = errors.Join(*failed, err)
		return out
	})
}

// parents packs the directories that a name of --parents begins with, as they are where it comes from. Those that are there stay as they are.
func (b *bringing) parents(p *archive.Packer, f found) error {
	for k, c := range f.name {
		if c != '/' || isDir(b.top, path.Join(b.dest, f.name[:k])) {
			continue
		}
		real, err := archive.Resolve(f.root, path.Join(f.pivot, f.name[:k]))
		if err != nil {
			return err
		}
		if err := p.AddPath(f.root, real, path.Join(b.dest, f.name[:k])); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes a directory that the instruction needs.
func (b *bringing) mkdir(p string) error {
	b.needed = append(b.needed, p)
	return makeDirFor(b.top, p, *b.owner)
}

// makeDirFor makes a directory of a tree, and those above it, for an owner. Those that are there stay as they are.
func makeDirFor(top *os.File, p string, owner archive.Owner) error {
	dir, err := archive.MakeDirFor(top, p, owner)
	if err != nil {
		return err
	}
	if err := dir.Close(); err != nil {
		return err
	}
	if !isDir(top, p) {
		return fault.New(fault.Invalid, "cannot make the directory %s: what is there is not a directory", p)
	}
	return nil
}
