package container

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"berth/cli/flag"
	"berth/cli/format"
	"berth/cli/reference"
	"berth/cli/session"
	"berth/client"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

type psOptions struct {
	listing         client.Listing
	filters         []string
	format          string
	latest, noTrunc bool
	quiet           bool
	last            int
}

// List is the command "container ls".
func List(s *session.Session) *cobra.Command {
	var o psOptions
	cmd := &cobra.Command{
		Use: "ps [OPTIONS]", Args: session.NoArgs,
		Example: `ps -a
ps --filter status=exited --format '{{.Names}}: {{.Status}}'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd, s) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.listing.All, "all", "a", false, "Show all containers (default shows just running)")
	fs.VarP(flag.Filters(&o.filters), "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&o.format, "format", "", format.Usage)
	fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVarP(&o.listing.Size, "size", "s", false, "Display total file sizes")
	return cmd
}

func (o *psOptions) run(cmd *cobra.Command, s *session.Session) error {
	if o.format == "" && !o.quiet {
		o.format = s.Config().PsFormat
	}
	q := o.listing
	q.Filters = session.Filters(o.filters)
	if o.last > 0 {
		q.Limit = o.last
	}
	if o.latest {
		q.Limit = 1
	}
	// A template that shows sizes needs them counted.
	q.Size = q.Size || strings.Contains(o.format, ".Size")
	api, err := s.API()
	if err != nil {
		return err
	}
	all, err := api.Containers.List(cmd.Context(), q)
	if err != nil {
		return err
	}
	now := time.Now()
	rows := make([]Row, len(all))
	for i := range all {
		rows[i] = newContainerRow(&all[i], !o.noTrunc, now)
		if o.format != "" {
			// The machine's time zone is read only when it can be seen.
			rows[i].CreatedAt = time.Unix(all[i].Created, 0).Local().Format(format.DateLayout)
		}
	}
	return containerTable(o.listing.Size).Print(s.Out, o.format, o.quiet, rows)
}

// Row is a container as ps shows it; the fields are what templates may use.
type Row struct {
	Command      string
	CreatedAt    string
	HealthStatus string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Platform     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
}

// Label gives one label's value.
func (r Row) Label(key string) string {
	if r.labels == nil && r.ID == containerHeading.ID {
		word := key[strings.LastIndexByte(key, '.')+1:]
		return strings.NewReplacer("-", " ", "_", " ").Replace(word)
	}
	return r.labels[key]
}

var containerHeading = Row{
	Command: "COMMAND", CreatedAt: "CREATED AT", HealthStatus: "HEALTH STATUS", ID: "CONTAINER ID", Image: "IMAGE", Labels: "LABELS",
	LocalVolumes: "LOCAL VOLUMES", Mounts: "MOUNTS", Names: "NAMES", Networks: "NETWORKS", Platform: "PLATFORM", Ports: "PORTS",
	RunningFor: "CREATED", Size: "SIZE", State: "STATE", Status: "STATUS",
}

func containerTable(size bool) *format.Table[Row] {
	t := &format.Table[Row]{
		Columns: []string{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"},
		Cells: func(r Row) []string {
			cells := []string{r.ID, r.Image, r.Command, r.RunningFor, r.Status, r.Ports, r.Names}
			if size {
				cells = append(cells, r.Size)
			}
			return cells
		},
		Heading: containerHeading,
		Quiet:   func(r Row) string { return r.ID },
	}
	if size {
		t.Columns = append(t.Columns, "SIZE")
	}
	return t
}

func newContainerRow(c *container.Summary, cut bool, now time.Time) Row {
	created := time.Unix(c.Created, 0)
	r := Row{
		ID: c.ID, Image: c.Image, Status: c.Status, State: string(c.State), labels: c.Labels,
		RunningFor: format.Duration(now.Sub(created)) + " ago",
		Command:    c.Command, Ports: showPorts(c.Ports), Size: showSize(c), Labels: showLabels(c.Labels),
	}
	if r.labels == nil {
		r.labels = map[string]string{}
	}
	if r.Image == "" {
		r.Image = "<no image>"
	}
	if c.Health != nil {
		r.HealthStatus = string(c.Health.Status)
	}
	if cut {
		r.ID = format.ShortID(c.ID)
		r.Image = shortImage(r.Image, c.ImageID)
		r.Command = format.Ellipsis(c.Command, 20)
	}
	r.Command = strconv.Quote(r.Command)
	r.Names = showNames(c.Names, cut)
	volumes := 0
	var mounts []string
	for _, m := range c.Mounts {
		n := m.Name
		if n == "" {
			n = m.Source
		}
		if cut {
			n = format.Ellipsis(n, 15)
		}
		mounts = append(mounts, n)
		if m.Driver == "local" {
			volumes++
		}
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(volumes)
	if c.NetworkSettings != nil {
		var names []string
		for n := range c.NetworkSettings.Networks {
			names = append(names, n)
		}
		sort.Strings(names)
		r.Networks = strings.Join(names, ",")
	}
	if d := c.ImageManifestDescriptor; d != nil && d.Platform != nil {
		r.Platform = strings.TrimSuffix(d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant, "/")
	}
	return r
}

// shortImage shortens an image that is named by its ID, and leaves the digest of a name out.
func shortImage(image, id string) string {
	if short := format.ShortID(image); short == format.ShortID(id) {
		return short
	}
	if r, err := reference.Parse(image); err == nil {
		r.Digest = ""
		return r.Familiar()
	}
	return image
}

// showNames lists a container's names; links to it (names with a second slash) only in full.
func showNames(names []string, cut bool) string {
	var out []string
	for _, n := range names {
		n = strings.TrimPrefix(n, "/")
		if cut && strings.Contains(n, "/") {
			continue
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

func showSize(c *container.Summary) string {
	text := format.Size(c.SizeRw)
	if c.SizeRootFs > 0 {
		text += fmt.Sprintf(" (virtual %s)", format.Size(c.SizeRootFs))
	}
	return text
}

func showLabels(labels map[string]string) string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// portRun is a run of neighbouring ports that are published alike.
type portRun struct{ first, last uint16 }

// showPorts lists ports, neighbours as ranges: "0.0.0.0:80-81->80-81/tcp, 443/tcp".
func showPorts(all []container.PortSummary) string {
	all = slices.Clone(all)
	slices.SortFunc(all, comparePorts)
	type key struct {
		ip    netip.Addr
		proto string
	}
	runs := map[key]*portRun{}
	var order []key
	var shown, singles []string
	show := func(k key, r *portRun) string {
		ports := strconv.Itoa(int(r.first))
		if r.last > r.first {
			ports += "-" + strconv.Itoa(int(r.last))
		}
		if k.ip.IsValid() {
			ports = joinHost(k.ip, ports) + "->" + ports
		}
		return ports + "/" + k.proto
	}
	for _, p := range all {
		k := key{ip: p.IP, proto: p.Type}
		if !p.IP.IsValid() && p.PublicPort != 0 {
			k.ip = netip.IPv4Unspecified()
		}
		if k.ip.IsValid() && p.PublicPort != p.PrivatePort {
			singles = append(singles, fmt.Sprintf("%s->%d/%s", joinHost(k.ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
			continue
		}
		r := runs[k]
		if r == nil {
			runs[k] = &portRun{first: p.PrivatePort, last: p.PrivatePort}
			order = append(order, k)
			continue
		}
		if p.PrivatePort == r.last+1 {
			r.last++
			continue
		}
		shown = append(shown, show(k, r))
		*r = portRun{first: p.PrivatePort, last: p.PrivatePort}
	}
	for _, k := range order {
		shown = append(shown, show(k, runs[k]))
	}
	return strings.Join(append(shown, singles...), ", ")
}

func joinHost(ip netip.Addr, port string) string {
	if ip.Is6() {
		return "[" + ip.String() + "]:" + port
	}
	return ip.String() + ":" + port
}

func comparePorts(a, b container.PortSummary) int {
	if d := int(a.PrivatePort) - int(b.PrivatePort); d != 0 {
		return d
	}
	if d := strings.Compare(addrText(a.IP), addrText(b.IP)); d != 0 {
		return d
	}
	if d := int(a.PublicPort) - int(b.PublicPort); d != 0 {
		return d
	}
	return strings.Compare(a.Type, b.Type)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
