package image

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/cli/terminal"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
)

type historyOptions struct {
	human, noTrunc, quiet bool
	format, platform      string
}

// History is the command "image history".
func History(s *session.Session) *cobra.Command {
	o := historyOptions{human: true}
	cmd := &cobra.Command{
		Use: "history [OPTIONS] IMAGE", Args: session.Exactly(1), Example: "history --no-trunc debian",
		RunE: func(cmd *cobra.Command, args []string) error { return history(s, cmd, o, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringVar(&o.format, "format", "", format.Usage)
	fs.BoolVarP(&o.human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&o.platform, "platform", "", "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	return cmd
}

func history(s *session.Session, cmd *cobra.Command, o historyOptions, ref string) error {
	platform, err := reference.Platform(o.platform)
	if err != nil {
		return err
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	all, err := api.Images.History(cmd.Context(), ref, platform)
	if err != nil {
		return err
	}
	if terminal.Is(s.Out) {
		for i := range all {
			all[i].CreatedBy, all[i].Comment = format.Printable(all[i].CreatedBy), format.Printable(all[i].Comment)
		}
	}
	rows := make([]historyRow, len(all))
	now := time.Now()
	for i := range all {
		rows[i] = newHistoryRow(&all[i], o, now)
	}
	t := *historyTable
	if !o.human {
		t.Columns = slices.Clone(t.Columns)
		t.Columns[1] = "CREATED AT"
	}
	return t.Print(s.Out, o.format, o.quiet, rows)
}

// historyRow is one step of an image's history; the fields are what templates may use.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

var historyTable = &format.Table[historyRow]{
	Columns: []string{"IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"},
	Cells: func(r historyRow) []string {
		return []string{r.ID, r.CreatedSince, r.CreatedBy, r.Size, r.Comment}
	},
	Heading: historyRow{Comment: "COMMENT", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", CreatedSince: "CREATED", ID: "IMAGE", Size: "SIZE"},
	Quiet:   func(r historyRow) string { return r.ID },
}

func newHistoryRow(h *image.HistoryResponseItem, o historyOptions, now time.Time) historyRow {
	r := historyRow{Comment: h.Comment, ID: h.ID, CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " ")}
	created := time.Unix(h.Created, 0)
	if h.Created > 0 {
		r.CreatedAt = created.Local().Format(time.RFC3339)
	}
	if !o.noTrunc {
		r.ID, r.CreatedBy = format.ShortID(h.ID), format.Ellipsis(strings.ReplaceAll(r.CreatedBy, "\n", " "), 45) // a here-document has lines
	}
	r.CreatedSince, r.Size = r.CreatedAt, strconv.FormatInt(h.Size, 10)
	if o.human {
		r.Size, r.CreatedSince = format.Size(h.Size), "N/A"
		if h.Created > 0 {
			r.CreatedSince = format.Duration(now.Sub(created)) + " ago"
		}
	}
	return r
}
