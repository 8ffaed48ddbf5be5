package dockerfile

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// named finds the build context that was given a name. The empty tree and the main context keep theirs.
func (p *planner) named(name string, platform ocispec.Platform) (*Base, error) {
	if p.o.Named == nil || strings.EqualFold(name, "scratch") || strings.EqualFold(name, "context") {
		return nil, nil
	}
	return p.o.Named(p.ctx, name, platform)
}

// replace puts the build context of a stage's name in its place: its instructions are not carried out.
func (p *planner) replace(s *stage) (bool, error) {
	if s.file == nil || s.file.Name == "" {
		return false, nil
	}
	base, err := p.named(s.file.Name, s.Platform)
	if base == nil || err != nil {
		return false, err
	}
	s.base, s.file.Commands = nil, nil
	s.Text = "FROM " + s.file.Name
	return true, p.beginWith(s, s.file.Name)
}
