package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"berth/cli/format"
	"berth/cli/session"
	"berth/cli/terminal"
	"berth/client"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
}

// Stats is the command "container stats".
func Stats(s *session.Session) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use: "stats [OPTIONS] [CONTAINER...]", Example: "stats\nstats --no-stream --format '{{.Name}}: {{.CPUPerc}}' web db",
		RunE: func(cmd *cobra.Command, args []string) error { return stats(cmd.Context(), s, o, args) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.StringVar(&o.format, "format", "", format.Usage)
	fs.BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	return cmd
}

// How often the table is shown anew, and how soon after the first look the first time: a share of the
// processors is counted between two looks.
const (
	statsPeriod = time.Second
	statsFirst  = 500 * time.Millisecond
)

// stats shows what containers use, once or until the user has seen enough.
func stats(ctx context.Context, s *session.Session, o statsOptions, names []string) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	if o.format == "" {
		o.format = s.Config().StatsFormat
	}
	m := &meter{api: api, names: names, all: o.all, last: map[string]container.StatsResponse{}}
	if _, err := m.look(ctx); err != nil {
		return err
	}
	if o.format == "" {
		o.format = s.Config().StatsFormat
	}
	live := !o.noStream && terminal.Is(s.Out)
	for wait := statsFirst; ; wait = statsPeriod {
		time.Sleep(wait)
		samples, err := m.look(ctx)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := statsTable().Print(&b, o.format, false, statsRows(samples, !o.noTrunc)); err != nil {
			return err
		}
		text := b.String()
		if live { // from the top, each line over the one before, and nothing below
			text = "\033[H" + strings.ReplaceAll(text, "\n", "\033[K\n") + "\033[J"
		}
		if _, err := fmt.Fprint(s.Out, text); err != nil {
			return err
		}
		if o.noStream || len(names) > 0 && !m.any {
			return nil
		}
	}
}

// meter looks at containers again and again.
type meter struct {
	api   *client.Client
	names []string // as the user gave them; none: those that run, or all
	all   bool
	last  map[string]container.StatsResponse // by the name it was asked for
	any   bool                               // one of the containers is still there
}

// sampled is a container and what it used lately.
type sampled struct {
	asked string // the name or ID that it was asked for by
	gone  bool
	stats container.StatsResponse // with the sample before as PreCPUStats
}

// look takes a sample of every container, a few at a time. A named one that was never there is an error.
func (m *meter) look(ctx context.Context) ([]sampled, error) {
	names := m.names
	if len(names) == 0 {
		list, err := m.api.Containers.List(ctx, client.Listing{All: m.all})
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			names = append(names, c.ID)
		}
	}
	all, errs := make([]sampled, len(names)), make([]error, len(names))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(8, len(names)) {
		workers.Go(func() {
			for k := range next {
				all[k].asked = names[k]
				all[k].stats, errs[k] = m.api.Containers.Stats(ctx, names[k])
			}
		})
	}
	for k := range names {
		next <- k
	}
	close(next)
	workers.Wait()
	return m.compare(all, errs)
}

// compare puts each sample beside the one before.
func (m *meter) compare(all []sampled, errs []error) ([]sampled, error) {
	var kept []sampled
	var failed []string
	last := m.last
	m.last, m.any = make(map[string]container.StatsResponse, len(all)), false
	for k, s := range all {
		before, seen := last[s.asked]
		var answer *client.Error
		switch {
		case errs[k] == nil:
			m.any = true
			m.last[s.asked] = s.stats
			if seen && before.ID == s.stats.ID {
				s.stats.PreCPUStats = before.CPUStats
			} else {
				s.stats.PreCPUStats = s.stats.CPUStats
			}
		case errors.As(errs[k], &answer) && answer.Status == 404 && len(m.names) == 0:
			continue // it went meanwhile
		case seen:
			s.gone, m.last[s.asked] = true, before
		default:
			failed = append(failed, errs[k].Error())
		}
		kept = append(kept, s)
	}
	if len(failed) > 0 {
		return nil, &session.Exit{Code: 1, Message: strings.Join(failed, "\n")}
	}
	return kept, nil
}

type statsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

func statsTable() *format.Table[statsRow] {
	return &format.Table[statsRow]{
		Columns: []string{"CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"},
		Cells: func(r statsRow) []string {
			return []string{r.ID, r.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.NetIO, r.BlockIO, r.PIDs}
		},
		Heading: statsRow{
			BlockIO: "BLOCK I/O", CPUPerc: "CPU %", Container: "CONTAINER", ID: "CONTAINER ID", MemPerc: "MEM %",
			MemUsage: "MEM USAGE / LIMIT", Name: "NAME", NetIO: "NET I/O", PIDs: "PIDS",
		},
	}
}

func statsRows(all []sampled, cut bool) []statsRow {
	rows := make([]statsRow, len(all))
	for k, s := range all {
		rows[k] = newStatsRow(s, cut)
	}
	return rows
}

func newStatsRow(s sampled, cut bool) statsRow {
	v := &s.stats
	r := statsRow{Container: s.asked, ID: v.ID, Name: strings.TrimPrefix(v.Name, "/")}
	if cut {
		r.ID = format.ShortID(r.ID)
		if r.Container == v.ID {
			r.Container = r.ID
		}
	}
	if s.gone {
		r.ID, r.Name = "--", "--"
		r.CPUPerc, r.MemUsage, r.MemPerc, r.NetIO, r.BlockIO, r.PIDs = "--", "-- / --", "--", "--", "--", "--"
		return r
	}
	used, percent := memoryUse(v.MemoryStats)
	r.CPUPerc, r.MemPerc = fmt.Sprintf("%.2f%%", cpuShare(v.PreCPUStats, v.CPUStats)), fmt.Sprintf("%.2f%%", percent)
	r.MemUsage = format.BinarySize(int64(used)) + " / " + format.BinarySize(int64(v.MemoryStats.Limit))
	var received, sent, read, written uint64
	for _, n := range v.Networks {
		received, sent = received+n.RxBytes, sent+n.TxBytes
	}
	for _, e := range v.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			read += e.Value
		case "write":
			written += e.Value
		}
	}
	r.NetIO = format.Size(int64(received)) + " / " + format.Size(int64(sent))
	r.BlockIO = format.Size(int64(read)) + " / " + format.Size(int64(written))
	r.PIDs = fmt.Sprint(v.PidsStats.Current)
	return r
}

// cpuShare is the part of one processor that was used between two samples, in percent: 200 is two of them in full.
func cpuShare(before, now container.CPUStats) float64 {
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	had := float64(now.SystemUsage) - float64(before.SystemUsage)
	processors := float64(now.OnlineCPUs)
	if processors == 0 {
		processors = float64(len(now.CPUUsage.PercpuUsage))
	}
	if used <= 0 || had <= 0 {
		return 0
	}
	return used / had * processors * 100
}

// memoryUse leaves out files that the kernel would drop first, as every tool of the field does; percent is of the limit.
func memoryUse(m container.MemoryStats) (used uint64, percent float64) {
	used = m.Usage
	idle, v1 := m.Stats["total_inactive_file"]
	if !v1 {
		idle = m.Stats["inactive_file"] // cgroup v2
	}
	if idle < used {
		used -= idle
	}
	if m.Limit > 0 {
		percent = float64(used) / float64(m.Limit) * 100
	}
	return used, percent
}
