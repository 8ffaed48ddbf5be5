package image

import (
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/fault"
)

// Host is the platform of this machine.
func Host() ocispec.Platform {
	return normalPlatform(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

// architectures are those that may stand alone, without a system (those of Go, "go tool dist list").
var architectures = []string{
	"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "sparc64", "wasm",
}

// ParsePlatform reads os/arch[/variant], arch or os, as in --platform. What is left out is this machine's.
func ParsePlatform(s string) (ocispec.Platform, error) {
	host := Host()
	part := strings.Split(strings.ToLower(s), "/")
	for _, p := range part {
		if p == "" || strings.ContainsFunc(p, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
		}) {
			return ocispec.Platform{}, fault.New(fault.Invalid, "%q is an invalid OS component or architecture of %q: platform specifier component must be like linux/amd64 or linux/arm/v7", p, s)
		}
	}
	switch len(part) {
	case 1:
		if part[0] == "linux" {
			return host, nil
		}
		if !slices.Contains(architectures, normalPlatform(ocispec.Platform{Architecture: part[0]}).Architecture) {
			return ocispec.Platform{}, fault.New(fault.Invalid, "%q: unknown operating system or architecture: use os/arch, such as linux/amd64", s)
		}
		return normalPlatform(ocispec.Platform{OS: host.OS, Architecture: part[0]}), nil
	case 2:
		return normalPlatform(ocispec.Platform{OS: part[0], Architecture: part[1]}), nil
	case 3:
		return normalPlatform(ocispec.Platform{OS: part[0], Architecture: part[1], Variant: part[2]}), nil
	}
	return ocispec.Platform{}, fault.New(fault.Invalid, "%q: cannot parse platform specifier, use os/arch or os/arch/variant", s)
}

// FormatPlatform writes p as os/arch[/variant].
func FormatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// normalPlatform brings the spellings in use to those of the OCI image index: x86_64 is amd64,
// aarch64 is arm64 v8, and so on.
func normalPlatform(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i686":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "" || p.Variant == "8"):
		p.Variant = "v8"
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm" && len(p.Variant) == 1:
		p.Variant = "v" + p.Variant
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	}
	return p
}

// runs lists what a machine of platform p runs, the best first.
func runs(p ocispec.Platform) []ocispec.Platform {
	p = normalPlatform(p)
	list := []ocispec.Platform{p}
	older := func(arch string, variants ...string) {
		for _, v := range variants {
			list = append(list, ocispec.Platform{OS: p.OS, Architecture: arch, Variant: v})
		}
	}
	arms := []string{"v8", "v7", "v6", "v5"}
	switch p.Architecture {
	case "amd64":
		all := []string{"v4", "v3", "v2", ""}
		if at := slices.Index(all, p.Variant); at >= 0 {
			older("amd64", all[at+1:]...)
		}
		older("386", "")
	case "arm64":
		if p.Variant != "v8" {
			older("arm64", "v8")
		}
		older("arm", arms...)
	case "arm":
		if at := slices.Index(arms, p.Variant); at >= 0 {
			older("arm", arms[at+1:]...)
		}
	}
	return list
}

// rank tells how well content for have serves want: 0 is best, -1 not at all. A platform that
// does not say what it is serves everybody, last. exact leaves out other architectures that the machine runs too.
func rank(want, have ocispec.Platform, exact bool) int {
	list := runs(want)
	if have.OS == "" && have.Architecture == "" {
		return len(list)
	}
	have = normalPlatform(have)
	return slices.IndexFunc(list, func(p ocispec.Platform) bool {
		return p.OS == have.OS && p.Architecture == have.Architecture && p.Variant == have.Variant &&
			(!exact || p.Architecture == list[0].Architecture)
	})
}
