package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/moby/moby/api/types/image"
)

// graphNode is a layer in its place: the same layer above another one is another node.
type graphNode struct {
	layer  string       // diff ID; "" at the root
	images []graphImage // that have no further layer
	above  []*graphNode
}

type graphImage struct {
	id    string
	names []string
	size  int64
}

// showGraph draws images by the layers that they stand on together: as a tree, or for graphviz.
func (o *imagesOptions) showGraph(ctx context.Context, s *session.Session, filters client.Filters) error {
	if o.quiet || o.noTrunc || o.digests || o.tree || o.format != "" && o.format != "dot" {
		return fmt.Errorf("--graph takes of the other options only --all, --filter and --format dot")
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	all, err := api.Images.List(ctx, client.ImageListing{All: o.all, Filters: filters})
	if err != nil {
		return err
	}
	root := &graphNode{}
	for _, i := range all {
		raw, err := api.Images.Inspect(ctx, i.ID, "")
		if err != nil {
			return err
		}
		var details image.InspectResponse
		if err := json.Unmarshal(raw, &details); err != nil {
			return fmt.Errorf("read the daemon's answer about image %s: %w", i.ID, err)
		}
		root.add(details.RootFS.Layers, graphImage{i.ID, i.RepoTags, i.Size})
	}
	if o.format == "dot" {
		return root.dot(s.Out)
	}
	var b strings.Builder
	root.draw(&b, "")
	_, err = io.WriteString(s.Out, b.String())
	return err
}

func (n *graphNode) add(layers []string, i graphImage) {
	for _, l := range layers {
		at := slices.IndexFunc(n.above, func(c *graphNode) bool { return c.layer == l })
		if at < 0 {
			at = len(n.above)
			n.above = append(n.above, &graphNode{layer: l})
		}
		n = n.above[at]
	}
	n.images = append(n.images, i)
}

func (i *graphImage) name() string {
	if len(i.names) == 0 {
		return "<untagged>"
	}
	return strings.Join(i.names, " ")
}

// draw writes what is above n. Layers on which nothing forks and no image ends are told as a number.
func (n *graphNode) draw(b *strings.Builder, indent string) {
	for k, c := range n.above {
		branch, below := "├─ ", "│  "
		if k == len(n.above)-1 {
			branch, below = "└─ ", "   "
		}
		first, layers := c, 1
		for len(c.images) == 0 && len(c.above) == 1 {
			c = c.above[0]
			layers++
		}
		label := format.ShortID(first.layer)
		if layers > 1 {
			label += fmt.Sprintf(" … %s (%d layers)", format.ShortID(c.layer), layers)
		}
		for _, i := range c.images {
			label += fmt.Sprintf("  %s %s %s", format.ShortID(i.id), format.Size(i.size), i.name())
		}
		b.WriteString(indent + branch + label + "\n")
		c.draw(b, indent+below)
	}
	if indent == "" {
		for _, i := range n.images {
			fmt.Fprintf(b, "(no layers)  %s %s %s\n", format.ShortID(i.id), format.Size(i.size), i.name())
		}
	}
}

// dot writes the graph in graphviz' language.
func (n *graphNode) dot(out io.Writer) error {
	var b strings.Builder
	b.WriteString("digraph images {\n\trankdir=BT\n\tnode [shape=box]\n\tbase [style=invisible]\n")
	number := 0
	var walk func(n *graphNode, name string)
	walk = func(n *graphNode, name string) {
		for k, i := range n.images {
			fmt.Fprintf(&b, "\t%q [label=%q, style=filled, fillcolor=lightblue]\n\t%q -> %q\n", fmt.Sprint(name, "image", k), format.ShortID(i.id)+"\n"+strings.Join(i.names, "\n"), fmt.Sprint(name, "image", k), name)
		}
		for _, c := range n.above {
			number++
			layer := fmt.Sprint("layer", number)
			fmt.Fprintf(&b, "\t%q [label=%q]\n\t%q -> %q\n", layer, format.ShortID(c.layer), layer, name)
			walk(c, layer)
		}
	}
	walk(n, "base")
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}
