package registry

import (
	"fmt"
	"strconv"
	"strings"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"
)

type searchOptions struct {
	filters []string
	format  string
	limit   int
	noTrunc bool
}

// Search is the command "search".
func Search(s *session.Session) *cobra.Command {
	var o searchOptions
	cmd := &cobra.Command{
		Use: "search [OPTIONS] TERM", Args: session.Exactly(1), Example: "search nginx\nsearch --filter stars=50 --filter is-official=true debian",
		RunE: func(cmd *cobra.Command, args []string) error { return search(cmd, s, o, args[0]) },
	}
	fs := cmd.Flags()
	fs.VarP(flag.Filters(&o.filters), "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&o.format, "format", "", "Pretty-print search using a Go template")
	fs.IntVar(&o.limit, "limit", 0, "Max number of search results")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

func search(cmd *cobra.Command, s *session.Session, o searchOptions, term string) error {
	filters := session.Filters(o.filters)
	if len(filters["is-automated"]) > 0 {
		s.Warn([]string{`the "is-automated" filter is deprecated, and searching for "is-automated=true" will not yield any results in future.`})
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	found, err := api.Images.Search(cmd.Context(), term, o.limit, filters, s.Auth(cmd.Context(), index(term)))
	if err != nil {
		return err
	}
	rows := make([]searchRow, len(found))
	for i, r := range found {
		rows[i] = newSearchRow(r, !o.noTrunc, strings.Contains(o.format, "json"))
	}
	return searchTable().Print(s.Out, o.format, false, rows)
}

// index is the host that is asked for a term: one named before a slash, else the default registry.
func index(term string) string {
	host, _, ok := strings.Cut(term, "/")
	if ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return host
	}
	return "docker.io"
}

// searchRow is one image that was found; the fields are what templates may use.
type searchRow struct {
	Description string
	IsOfficial  string
	Name        string
	StarCount   string
}

func searchTable() *format.Table[searchRow] {
	return &format.Table[searchRow]{
		Columns: []string{"NAME", "DESCRIPTION", "STARS", "OFFICIAL"},
		Cells:   func(r searchRow) []string { return []string{r.Name, r.Description, r.StarCount, r.IsOfficial} },
		Heading: searchRow{Description: "DESCRIPTION", IsOfficial: "OFFICIAL", Name: "NAME", StarCount: "STARS"},
	}
}

// descriptionWidth is how much of a description a table shows, in columns.
const descriptionWidth = 45

func newSearchRow(r registry.SearchResult, cut, json bool) searchRow {
	about := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.Description)
	if cut {
		about = format.Ellipsis(about, descriptionWidth)
	}
	row := searchRow{Name: r.Name, Description: about, StarCount: strconv.Itoa(r.StarCount)}
	switch {
	case json:
		row.IsOfficial = fmt.Sprint(r.IsOfficial)
	case r.IsOfficial:
		row.IsOfficial = "[OK]"
	}
	return row
}
