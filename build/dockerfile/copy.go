package dockerfile

import (
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/opencontainers/go-digest"

	"berth/fault"
)

func (w *writing) copy(c *instructions.CopyCommand) error {
	do := &Copy{Link: c.Link, Parents: c.Parents, Chown: c.Chown, Mode: c.Chmod, Exclude: c.ExcludePatterns}
	if c.From != "" {
		if name, _, err := shell.NewLex(w.escape).ProcessWord(c.From, newEnvironment(nil)); err != nil {
			return err
		} else if name != c.From {
			return fault.New(fault.Invalid, "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround")
		}
		var err error
		if do.From, err = w.from(w.s, c.From); err != nil {
			return err
		}
	}
	for _, p := range c.SourcePaths {
		if isURL(p) || isGit(p) {
			return fault.New(fault.Invalid, "source can't be a URL for COPY: use ADD")
		}
		if c.From == "" {
			w.checkIgnored("Copy", p)
		}
		do.Sources = append(do.Sources, Source{Path: p})
	}
	return w.bring("COPY", do, c.SourcesAndDest)
}

func (w *writing) add(c *instructions.AddCommand) error {
	do := &Copy{Add: true, Link: c.Link, Chown: c.Chown, Mode: c.Chmod, Exclude: c.ExcludePatterns}
	if c.Checksum != "" {
		if len(c.SourcePaths) != 1 {
			return fault.New(fault.Invalid, "checksum can't be specified for multiple sources")
		}
		if p := c.SourcePaths[0]; !isURL(p) && !isGit(p) {
			return fault.New(fault.Invalid, "checksum requires HTTP(S) or Git sources")
		}
	}
	for _, p := range c.SourcePaths {
		s := Source{Checksum: c.Checksum}
		switch {
		case isGit(p):
			git, err := addGit(c, p)
			if err != nil {
				return err
			}
			s.Git = &git
		case isURL(p):
			s.URL, s.Unpack = p, c.Unpack != nil && *c.Unpack
			if c.Checksum != "" {
				if _, err := digest.Parse(c.Checksum); err != nil {
					return fault.New(fault.Invalid, "invalid checksum %q: %w: write it as sha256:HEX", c.Checksum, err)
				}
			}
		default:
			w.checkIgnored("Add", p)
			s.Path, s.Unpack = p, c.Unpack == nil || *c.Unpack
		}
		do.Sources = append(do.Sources, s)
	}
	return w.bring("ADD", do, c.SourcesAndDest)
}

// addGit is the git source p of an ADD.
func addGit(c *instructions.AddCommand, p string) (Git, error) {
	git, _, err := ParseGit(p)
	if err != nil {
		return git, err
	}
	if c.KeepGitDir != nil {
		if git.KeepDir != nil && *git.KeepDir != *c.KeepGitDir {
			return git, fault.New(fault.Invalid, "inconsistent keep-git-dir configuration")
		}
		git.KeepDir = c.KeepGitDir
	}
	if c.Checksum != "" {
		if git.Checksum != "" && git.Checksum != c.Checksum {
			return git, fault.New(fault.Invalid, "checksum mismatch %q != %q", c.Checksum, git.Checksum)
		}
		git.Checksum = c.Checksum
	}
	return git, nil
}

// bring ends what ADD and COPY have in common.
func (w *writing) bring(name string, do *Copy, what instructions.SourcesAndDest) error {
	if err := checkMode(do.Mode); err != nil {
		return err
	}
	if do.Link && strings.Trim(do.Chown, "0123456789:") != "" {
		return fault.New(fault.Invalid, "%s --link makes a layer without looking at what is below, so --chown=%s can't be looked up there: write numbers, or leave --link out", name, do.Chown)
	}
	for _, f := range what.SourceContents {
		do.Sources = append(do.Sources, Source{Inline: &Inline{Name: f.Path, Data: f.Data}})
	}
	do.Dest = w.absolute(what.DestPath)
	last := path.Base(what.DestPath)
	if strings.HasSuffix(what.DestPath, "/") || what.DestPath == "" || last == "." || last == ".." {
		do.Dest = strings.TrimSuffix(do.Dest, "/") + "/"
	}
	by := name
	if do.Parents {
		by += " --parents"
	}
	if do.Chown != "" {
		by += " --chown=" + do.Chown
	}
	if do.Mode != "" {
		by += " --chmod=" + do.Mode
	}
	for _, p := range what.SourcePaths {
		by += " " + p
	}
	for _, f := range what.SourceContents {
		by += " <<" + f.Path
	}
	w.step(w.shown(), by+" "+what.DestPath+" # buildkit", do)
	return nil
}

// checkMode looks at --chmod as far as no file is needed for it.
func checkMode(mode string) error {
	if mode == "" || strings.ContainsAny(mode[:1], "ugoa+-=") {
		return nil
	}
	if n, err := strconv.ParseUint(mode, 8, 32); err != nil || n > 0o7777 {
		return fault.New(fault.Invalid, "invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", mode)
	}
	return nil
}

func isGit(s string) bool {
	_, is, _ := ParseGit(s)
	return is
}

func isURL(s string) bool {
	return (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")) && !isGit(s)
}

// checkIgnored warns of a source that the ignore file leaves out.
func (w *writing) checkIgnored(name, p string) {
	clean := strings.TrimPrefix(path.Clean("/"+p), "/")
	if clean == "" || w.o.Ignored == nil || strings.ContainsAny(clean, "*?[") || !w.o.Ignored(clean) {
		return
	}
	w.lint.Run(&linter.RuleCopyIgnoredFile, w.c.Location(), linter.RuleCopyIgnoredFile.Format(name, p))
}
