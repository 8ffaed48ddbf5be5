package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"berth/cli/format"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"

	"github.com/moby/moby/api/types/image"
)

// treeRow is an image, or one of its platforms.
type treeRow struct {
	name      string
	id        string
	disk      string
	content   string
	used      bool
	available bool // else it is shown faint
}

// treeImage is an image with its platforms.
type treeImage struct {
	names []string // the longest first
	treeRow
	platforms []treeRow
}

// showTree lists images with their platforms.
func (o *imagesOptions) showTree(ctx context.Context, s *session.Session, filters client.Filters) error {
	for _, other := range []struct { // in docker's order
		flag string
		set  bool
	}{{"quiet", o.quiet}, {"no-trunc", o.noTrunc}, {"digests", o.digests}, {"format", o.format != ""}} {
		if other.set {
			return fmt.Errorf("--%s is not yet supported with --tree", other.flag)
		}
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	all, err := api.Images.List(ctx, client.ImageListing{All: o.all, Manifests: true, Filters: filters})
	if err != nil {
		return err
	}
	if !o.all {
		all = slices.DeleteFunc(all, func(i image.Summary) bool { return len(i.RepoTags) == 0 && len(i.RepoDigests) == 0 })
	}
	slices.SortStableFunc(all, func(a, b image.Summary) int { return cmp.Compare(b.Created, a.Created) })
	list := make([]treeImage, len(all))
	for i := range all {
		list[i] = newTreeImage(&all[i])
	}
	_, width := terminal.Size(s.Out)
	if width == 0 {
		width = 80
	}
	t := treeTable{width: max(width, 20), color: terminal.Is(s.Out)}
	t.draw(list)
	_, err = fmt.Fprint(s.Out, t.String())
	return err
}

func newTreeImage(i *image.Summary) treeImage {
	t := treeImage{names: slices.Clone(i.RepoTags), treeRow: treeRow{id: i.ID, disk: format.Size(i.Size), used: i.Containers > 0, available: true}}
	slices.SortStableFunc(t.names, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var content int64
	for _, m := range i.Manifests {
		content += m.Size.Content
		if m.Kind != image.ManifestKindImage || m.ImageData == nil {
			continue
		}
		p := m.ImageData.Platform
		name := "unknown"
		if p.OS != "" {
			name = p.OS + "/" + p.Architecture
			if p.Variant != "" {
				name += "/" + p.Variant
			}
		}
		row := treeRow{format.Printable(name), m.ID, format.Size(m.Size.Total), format.Size(m.Size.Content), len(m.ImageData.Containers) > 0, m.Available}
		t.used = t.used || row.used
		t.platforms = append(t.platforms, row)
	}
	t.content = format.Size(content)
	return t
}

// treeTable draws the tree.
type treeTable struct {
	strings.Builder
	width   int
	color   bool
	name    int // width of the first column
	columns int // how many fit beside it
}

const treeGap = 3

// treeColumns are those beside the name, and their widths.
var treeColumns = [...]struct {
	title string
	width int
	right bool
}{{"ID", 12, false}, {"DISK USAGE", 10, true}, {"CONTENT SIZE", 12, true}, {"EXTRA", 5, false}}

func (t *treeTable) draw(list []treeImage) {
	t.fitColumns(list)
	legend := " Info ->  U In Use "
	fmt.Fprintf(t, "%s%s\n\n", strings.Repeat(" ", max(t.width-len(legend), 0)), legend)
	titles := make([]string, len(treeColumns))
	for i, c := range treeColumns {
		titles[i] = c.title
	}
	t.line("IMAGE", titles, "1")
	spaced := slices.ContainsFunc(list, func(i treeImage) bool { return len(i.platforms) > 0 })
	for _, i := range list {
		name := "<untagged>"
		for n, tag := range i.names {
			if n < len(i.names)-1 {
				t.WriteString(t.painted(format.Ellipsis(tag, t.width), "1;34") + "\n")
			}
			name = tag
		}
		t.row(name, &i.treeRow, "1;34")
		for n, p := range i.platforms {
			branch, paint := "├─ ", ""
			if n == len(i.platforms)-1 {
				branch = "└─ "
			}
			if !p.available {
				paint = "2"
			}
			t.row(branch+p.name, &p, paint)
		}
		if spaced {
			t.WriteByte('\n')
		}
	}
}

// fitColumns leaves out the last columns where the names would have less than 12 characters.
func (t *treeTable) fitColumns(list []treeImage) {
	const least = 12
	room := t.width
	for _, c := range treeColumns {
		if room-c.width-treeGap < least {
			break
		}
		room -= c.width + treeGap
		t.columns++
	}
	t.name = len("IMAGE")
	for _, i := range list {
		for _, n := range i.names {
			t.name = max(t.name, format.Width(n))
		}
		if len(i.names) == 0 {
			t.name = max(t.name, len("<untagged>"))
		}
		for _, p := range i.platforms {
			t.name = max(t.name, format.Width("└─ "+p.name))
		}
	}
	t.name = min(t.name, room)
}

func (t *treeTable) row(name string, r *treeRow, paint string) {
	used := ""
	if r.used {
		used = "U"
	}
	t.line(name, []string{format.ShortID(r.id), r.disk, r.content, used}, paint)
}

func (t *treeTable) line(name string, cells []string, paint string) {
	name = format.Ellipsis(name, t.name)
	line := t.painted(name, paint) + strings.Repeat(" ", t.name-format.Width(name))
	for i, c := range treeColumns[:t.columns] {
		fill := strings.Repeat(" ", max(c.width-format.Width(cells[i]), 0))
		line += strings.Repeat(" ", treeGap)
		if c.right {
			line += fill + cells[i]
		} else {
			line += cells[i] + fill
		}
	}
	t.WriteString(line + "\n")
}

// painted gives text the terminal's attributes (ECMA-48, SGR).
func (t *treeTable) painted(text, paint string) string {
	if !t.color || paint == "" {
		return text
	}
	return "\x1b[" + paint + "m" + text + "\x1b[0m"
}
