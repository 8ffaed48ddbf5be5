package files

import (
	"context"
	"strings"

	"berth/union"

	api "github.com/moby/moby/api/types/container"
)

// Changes lists what was written to a root; nil when nothing.
func Changes(ctx context.Context, root union.Root) ([]api.FilesystemChange, error) {
	list, err := union.Changes(ctx, root)
	if err != nil {
		return nil, err
	}
	var all []api.FilesystemChange
	for _, c := range list {
		// JSON has no other bytes than text.
		all = append(all, api.FilesystemChange{Kind: api.ChangeType(c.Kind), Path: strings.ToValidUTF8(c.Path, "\uFFFD")})
	}
	return all, nil
}

// Usage is how many bytes on disk the removal of directories frees. One that goes just now counts for nothing.
func Usage(dirs ...string) (sum int64) {
	for _, dir := range dirs {
		if space, err := union.Measure(dir, nil); err == nil {
			sum += space.Disk
		}
	}
	return sum
}
