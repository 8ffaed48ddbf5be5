package manifest

import (
	"errors"
	"fmt"
	"slices"

	"berth/cli/session"
	"berth/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// Annotate is the command "manifest annotate".
func Annotate(s *session.Session) *cobra.Command {
	var p ocispec.Platform
	cmd := &cobra.Command{
		Use: "annotate [OPTIONS] MANIFEST_LIST MANIFEST", Args: session.Exactly(2),
		Example: "manifest annotate --os linux --arch arm64 --variant v8 registry.example.org/tool:v1 registry.example.org/tool:v1-arm64",
		RunE:    func(_ *cobra.Command, args []string) error { return annotate(s, p, args[0], args[1]) },
	}
	fs := cmd.Flags()
	fs.StringVar(&p.Architecture, "arch", "", "Set architecture")
	fs.StringVar(&p.OS, "os", "", "Set operating system")
	fs.StringSliceVar(&p.OSFeatures, "os-features", nil, "Set operating system feature")
	fs.StringVar(&p.OSVersion, "os-version", "", "Set operating system version")
	fs.StringVar(&p.Variant, "variant", "", "Set architecture variant")
	return cmd
}

// architectures are those that programs are built for, by operating system.
var architectures = map[string][]string{
	"darwin": {"386", "amd64", "arm", "arm64"}, "dragonfly": {"amd64"}, "freebsd": {"386", "amd64", "arm"},
	"linux":  {"386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x"},
	"netbsd": {"386", "amd64", "arm"}, "openbsd": {"386", "amd64", "arm"}, "plan9": {"386", "amd64"}, "solaris": {"amd64"}, "windows": {"386", "amd64", "arm64"},
}

// annotate changes what a list says of one of its manifests.
func annotate(s *session.Session, set ocispec.Platform, listName, image string) error {
	list, err := name(listName)
	if err != nil {
		return fmt.Errorf("annotate: error parsing name for manifest list %s: %w", listName, err)
	}
	r, err := name(image)
	if err != nil {
		return fmt.Errorf("annotate: error parsing name for manifest %s: %w", image, err)
	}
	kept := newStore(s)
	e, err := kept.get(list.String(), r.String())
	if errors.Is(err, fault.NotFound) {
		return fmt.Errorf("manifest for image %s does not exist in %s", image, listName)
	}
	if err != nil {
		return err
	}
	if e.Descriptor.Platform == nil {
		e.Descriptor.Platform = &ocispec.Platform{}
	}
	p := e.Descriptor.Platform
	for to, value := range map[*string]string{&p.OS: set.OS, &p.Architecture: set.Architecture, &p.Variant: set.Variant, &p.OSVersion: set.OSVersion} {
		if value != "" {
			*to = value
		}
	}
	for _, f := range set.OSFeatures {
		if !slices.Contains(p.OSFeatures, f) {
			p.OSFeatures = append(p.OSFeatures, f)
		}
	}
	if !slices.Contains(architectures[p.OS], p.Architecture) {
		return fmt.Errorf("manifest entry for image has unsupported os/arch combination: %s/%s", p.OS, p.Architecture)
	}
	return kept.save(list.String(), r.String(), e)
}
