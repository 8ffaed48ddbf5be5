package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sort"
	"strings"
	"text/template"
	"time"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/session"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"
)

type eventOptions struct {
	filters              []string
	format, since, until string
}

// Events is the command "system events".
func Events(s *session.Session) *cobra.Command {
	var o eventOptions
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Args: session.NoArgs, Example: "events --since 1h --filter type=container --filter event=die",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), s) },
	}
	fs := cmd.Flags()
	fs.VarP(flag.Filters(&o.filters), "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&o.format, "format", "", format.ObjectUsage)
	fs.StringVar(&o.since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&o.until, "until", "", "Stream events until this timestamp")
	return cmd
}

func (o eventOptions) run(ctx context.Context, s *session.Session) error {
	var tmpl *template.Template
	if o.format != "" {
		text := o.format
		if text == "json" {
			text = "{{json .}}"
		}
		var err error
		if tmpl, err = format.Parse(text); err != nil {
			return &session.Exit{Code: 64, Message: err.Error()}
		}
	}
	q := url.Values{}
	if err := session.Moments(q, o.since, o.until); err != nil {
		return err
	}
	if f := session.Filters(o.filters).String(); f != "" {
		q.Set("filters", f)
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	stream, err := api.System.Events(ctx, q)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		m, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the stream of events broke: %w", err)
		}
		if tmpl == nil {
			fmt.Fprintln(s.Out, eventLine(m))
			continue
		}
		if err := tmpl.Execute(s.Out, eventRow{m, string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]}); err != nil {
			return &session.Exit{Code: 64, Message: "template parsing error: " + err.Error()}
		}
		fmt.Fprintln(s.Out)
	}
}

// eventRow is an event as templates see it: with the names that its parts had before 2015, which scripts still use.
type eventRow struct {
	events.Message
	Status string `json:"-"`
	ID     string `json:"-"`
	From   string `json:"-"`
}

// stampLayout is RFC 3339 with all nine digits of the fraction.
const stampLayout = "2006-01-02T15:04:05.000000000Z07:00"

// eventLine is an event on a line: time, kind, what happened, to whom, and the attributes in order.
func eventLine(m events.Message) string {
	when := time.Unix(m.Time, 0)
	if m.TimeNano != 0 {
		when = time.Unix(0, m.TimeNano)
	}
	line := fmt.Sprintf("%s %s %s %s", when.Format(stampLayout), m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) == 0 {
		return line
	}
	var all []string
	for k, v := range m.Actor.Attributes {
		all = append(all, k+"="+v)
	}
	sort.Strings(all)
	return line + " (" + strings.Join(all, ", ") + ")"
}

// rawJSON gives v as JSON; used where a template falls back to the API's own names.
func rawJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}
