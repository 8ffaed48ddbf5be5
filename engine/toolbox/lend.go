package toolbox

import (
	"errors"
	"os"
	"path"
	"slices"

	"berth/fault"
	"berth/image"
	"berth/union"

	"github.com/distribution/reference"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Lender lends the layers of images.
type Lender struct{ Layers union.Driver }

// Choose finds the first image that has tools: one called busybox, or the first of the others, or one whose programs need it as their root, where
// that will do. fault.NotFound: there is none.
func (l Lender) Choose(all []*image.Image, rooted bool) (*image.Image, Kit, error) {
	slices.SortStableFunc(all, func(a, b *image.Image) int { return rank(a) - rank(b) })
	var second *image.Image
	var kit Kit
	for _, img := range all {
		k, err := l.Look(img)
		switch {
		case err != nil && !errors.Is(err, fault.NotFound):
			return nil, k, err
		case err != nil:
		case k.Rooted == "":
			return img, k, nil
		case second == nil && rooted:
			second, kit = img, k
		}
	}
	if second != nil {
		return second, kit, nil
	}
	return nil, Kit{}, fault.New(fault.NotFound, "no image here has a statically linked shell to lend: "+
		"get one ('berth pull busybox'), or name one with --image")
}

func rank(img *image.Image) int {
	if slices.ContainsFunc(img.Names, func(n reference.Named) bool { return path.Base(n.Name()) == "busybox" }) {
		return 0
	}
	return 1
}

// Look looks into an image; fault.NotFound says why it has no tools.
func (l Lender) Look(img *image.Image) (k Kit, err error) {
	err = union.Look(l.Layers, img.Chain, func(top *os.File) error {
		k, err = Find(top)
		return err
	})
	return k, err
}

// Hold gives an image's layers as a mount for a user, of which there is one of that name at a time. They stay, whatever becomes of the image,
// until LetGo, or until an engine sweeps what belongs to no container.
func (l Lender) Hold(user string, img *image.Image, at string) (specs.Mount, error) {
	if err := l.LetGo(user); err != nil {
		return specs.Mount{}, err
	}
	root, err := l.Layers.Create("tools-"+user, img.Chain, nil)
	if err != nil {
		return specs.Mount{}, err
	}
	return Mount(root.Lent(), at), nil
}

// LetGo ends what Hold began. It may be called without.
func (l Lender) LetGo(user string) error { return l.Layers.Delete("tools-" + user) }
