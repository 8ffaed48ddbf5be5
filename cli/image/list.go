// Package image has the commands about images.
//
// It is not the tree of commands, which package cli puts them in, and unpacks nothing. Invariant: a command does by the engine's API what it does.
package image

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
)

type imagesOptions struct {
	all, digests, noTrunc, quiet, tree, graph bool
	filters                                   []string
	format                                    string
}

// List is the command "image ls".
func List(s *session.Session) *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use: "images [OPTIONS] [REPOSITORY[:TAG]]", Args: session.Between(0, 1),
		Example: "images\nimages --digests debian",
		RunE:    func(cmd *cobra.Command, args []string) error { return o.run(cmd, s, args) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images, and with --tree those without a name)")
	fs.BoolVar(&o.digests, "digests", false, "Show digests")
	fs.VarP(flag.Filters(&o.filters), "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&o.format, "format", "", format.Usage)
	fs.BoolVar(&o.graph, "graph", false, "Draw images by the layers that they share; with --format dot for graphviz")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&o.tree, "tree", false, "List images with their platforms as a tree")
	return cmd
}

func (o *imagesOptions) run(cmd *cobra.Command, s *session.Session, args []string) error {
	filters := session.Filters(o.filters)
	if len(args) == 1 {
		filters["reference"] = append(filters["reference"], args[0])
	}
	if o.graph {
		return o.showGraph(cmd.Context(), s, filters)
	}
	if o.tree {
		return o.showTree(cmd.Context(), s, filters)
	}
	if o.format == "" && !o.quiet {
		o.format = s.Config().ImagesFormat
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	all, err := api.Images.List(cmd.Context(), client.ImageListing{All: o.all, Digests: o.digests, Filters: filters})
	if err != nil {
		return err
	}
	digests := o.digests || strings.Contains(o.format, ".Digest")
	var rows []Row
	now := time.Now()
	for i := range all {
		rows = append(rows, imageRows(&all[i], digests, o.format != "", !o.noTrunc, now)...)
	}
	if err := imageTable(o.digests).Print(s.Out, o.format, o.quiet, rows); err != nil {
		return err
	}
	if len(args) == 1 && len(all) == 0 && cmd.Name() == "images" && slices.Contains(mistaken, args[0]) {
		fmt.Fprintf(s.Err, "\nNo images found matching %q: did you mean \"%s image %[1]s\"?\n", args[0], session.Name)
	}
	return nil
}

// mistaken are the commands about images that people write after "images".
var mistaken = []string{"build", "diff", "explore", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm", "save", "tag"}

// Row is a name of an image as lists show it; the fields are what templates may use.
type Row struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

var imageHeading = Row{
	Containers: "CONTAINERS", CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID", Repository: "REPOSITORY",
	SharedSize: "SHARED SIZE", Size: "SIZE", Tag: "TAG", UniqueSize: "UNIQUE SIZE", VirtualSize: "VIRTUAL SIZE",
}

func imageTable(digests bool) *format.Table[Row] {
	t := &format.Table[Row]{
		Columns: []string{"REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"},
		Cells: func(r Row) []string {
			return []string{r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size}
		},
		Heading: imageHeading,
		Quiet:   func(r Row) string { return r.ID },
	}
	if digests {
		t.Columns = slices.Insert(t.Columns, 2, "DIGEST")
		t.Cells = func(r Row) []string {
			return []string{r.Repository, r.Tag, r.Digest, r.ID, r.CreatedSince, r.Size}
		}
	}
	return t
}

const noName = "<none>"

// imageRows makes a row for each name of an image, and one for an image without a name.
func imageRows(i *image.Summary, digests, dates, cut bool, now time.Time) []Row {
	created := time.Unix(i.Created, 0)
	base := Row{
		ID: i.ID, CreatedSince: "N/A",
		Repository: noName, Tag: noName, Digest: noName, Size: format.Size(i.Size), VirtualSize: format.FineSize(i.Size), Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
	}
	if dates {
		base.CreatedAt = created.Local().Format(format.DateLayout)
	}
	if i.Created > 0 {
		base.CreatedSince = format.Duration(now.Sub(created)) + " ago"
	}
	if cut {
		base.ID = format.ShortID(i.ID)
	}
	if i.Containers >= 0 {
		base.Containers = strconv.FormatInt(i.Containers, 10)
	}
	if i.SharedSize >= 0 {
		base.SharedSize, base.UniqueSize = format.FineSize(i.SharedSize), format.FineSize(i.Size-i.SharedSize)
	}
	var rows []Row
	seen := map[string]bool{}
	for _, t := range i.RepoTags {
		colon := strings.LastIndexByte(t, ':')
		if colon < 0 || t == noName+":"+noName {
			continue
		}
		r := base
		r.Repository, r.Tag = familiarName(t[:colon]), t[colon+1:]
		if digests {
			r.Digest = digestOf(i.RepoDigests, t[:colon])
		}
		seen[t[:colon]] = true
		rows = append(rows, r)
	}
	for _, d := range i.RepoDigests {
		repo, digest, ok := strings.Cut(d, "@")
		if !ok || repo == noName || seen[repo] || len(rows) > 0 && !digests {
			continue
		}
		r := base
		r.Repository, r.Digest = familiarName(repo), ""
		if digests {
			r.Digest = digest
		}
		seen[repo] = true
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		rows = append(rows, base)
	}
	return rows
}

func familiarName(repo string) string {
	if r, err := reference.Parse(repo); err == nil {
		return r.Familiar()
	}
	return repo
}

func digestOf(digests []string, repo string) string {
	for _, d := range digests {
		if name, digest, ok := strings.Cut(d, "@"); ok && name == repo {
			return digest
		}
	}
	return noName
}
