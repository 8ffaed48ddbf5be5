package system

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/cli/container"
	"berth/cli/format"
	"berth/cli/image"
	"berth/cli/session"
	"berth/client"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

// Usage is the command "system df".
func Usage(s *session.Session) *cobra.Command {
	var text string
	var verbose bool
	cmd := &cobra.Command{
		Use: "df [OPTIONS]", Args: session.NoArgs, Example: "system df\nsystem df -v",
		RunE: func(cmd *cobra.Command, _ []string) error { return usage(cmd.Context(), s, text, verbose) },
	}
	fs := cmd.Flags()
	fs.StringVar(&text, "format", "", format.Usage)
	fs.BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return cmd
}

func usage(ctx context.Context, s *session.Session, text string, verbose bool) error {
	api, err := s.API()
	if err != nil {
		return err
	}
	u, err := api.System.Usage(ctx)
	if err != nil {
		return err
	}
	if !verbose {
		return usageTable().Print(s.Out, text, false, usageRows(u))
	}
	table := text == "" || text == "table"
	d := detailed(u, table || strings.HasPrefix(text, "table"), time.Now())
	if table {
		return d.tables(s.Out, u)
	}
	if text == "json" {
		text = "{{json .}}"
	}
	t, err := format.Parse(text)
	if err != nil {
		return err
	}
	return t.Execute(s.Out, d)
}

// usageRow is one kind of things; the fields are what templates may use.
type usageRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

func usageTable() *format.Table[usageRow] {
	return &format.Table[usageRow]{
		Columns: []string{"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"},
		Cells:   func(r usageRow) []string { return []string{r.Type, r.TotalCount, r.Active, r.Size, r.Reclaimable} },
		Heading: usageRow{Active: "ACTIVE", Reclaimable: "RECLAIMABLE", Size: "SIZE", TotalCount: "TOTAL", Type: "TYPE"},
	}
}

func usageRows(u client.Usage) []usageRow {
	row := func(name string, total, active, size, reclaimable int64, share bool) usageRow {
		r := usageRow{Type: name, TotalCount: strconv.FormatInt(total, 10), Active: strconv.FormatInt(active, 10), Size: format.FineSize(size), Reclaimable: format.FineSize(reclaimable)}
		if share && size > 0 {
			r.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
		}
		return r
	}
	i, c, v, b := u.ImageUsage, u.ContainerUsage, u.VolumeUsage, u.BuildCacheUsage
	rows := []usageRow{
		row("Images", i.TotalCount, i.ActiveCount, i.TotalSize, i.Reclaimable, true),
		row("Containers", c.TotalCount, c.ActiveCount, c.TotalSize, c.Reclaimable, true),
		row("Local Volumes", v.TotalCount, v.ActiveCount, v.TotalSize, v.Reclaimable, true),
		row("Build Cache", b.TotalCount, b.ActiveCount, b.TotalSize, b.Reclaimable, false),
	}
	if o := u.Other; o != nil {
		other := row("Other", 0, 0, o.TotalSize, o.Reclaimable, true)
		other.TotalCount, other.Active = "-", "-"
		rows = append(rows, other)
	}
	return rows
}

// details are all items; the fields are what templates may use.
type details struct {
	Images     []image.Row
	Containers []container.Row
	Volumes    []volumeRow
	BuildCache []cacheRow
	Other      []client.OtherItem `json:",omitempty"`
}

// volumeRow is a volume as lists show it.
type volumeRow struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string
}

// cacheRow is a record of the build cache as lists show it.
type cacheRow struct {
	CacheType, CreatedAt, CreatedSince, Description, ID, InUse, LastUsedAt, LastUsedSince, Parent, Shared, Size, UsageCount string
}

func detailed(u client.Usage, cut bool, now time.Time) details {
	d := details{Images: []image.Row{}, Containers: []container.Row{}, Volumes: []volumeRow{}, BuildCache: []cacheRow{}}
	for _, i := range u.ImageUsage.Items {
		d.Images = append(d.Images, image.NewRow(i, cut, now))
	}
	for _, c := range u.ContainerUsage.Items {
		d.Containers = append(d.Containers, container.NewRow(c, cut, now))
	}
	for _, v := range u.VolumeUsage.Items {
		d.Volumes = append(d.Volumes, newVolumeRow(v))
	}
	for _, c := range u.BuildCacheUsage.Items {
		d.BuildCache = append(d.BuildCache, newCacheRow(c, now))
	}
	if u.Other != nil {
		d.Other = u.Other.Items
	}
	return d
}

func newVolumeRow(v volume.Volume) volumeRow {
	const none = "N/A"
	r := volumeRow{Availability: none, Driver: v.Driver, Group: none, Links: none, Mountpoint: v.Mountpoint, Name: v.Name, Scope: v.Scope, Size: none, Status: none}
	var labels []string
	for k, value := range v.Labels {
		labels = append(labels, k+"="+value)
	}
	slices.Sort(labels)
	r.Labels = strings.Join(labels, ",")
	if v.UsageData != nil {
		r.Links = strconv.FormatInt(v.UsageData.RefCount, 10)
		if v.UsageData.Size >= 0 { // else nobody knows
			r.Size = format.FineSize(v.UsageData.Size)
		}
	}
	return r
}

func newCacheRow(c build.CacheRecord, now time.Time) cacheRow {
	r := cacheRow{
		ID: c.ID, Parent: strings.Join(c.Parents, ", "), CacheType: c.Type, Description: c.Description, Size: format.FineSize(c.Size),
		CreatedAt: c.CreatedAt.String(), CreatedSince: format.Duration(now.Sub(c.CreatedAt)) + " ago",
		InUse: strconv.FormatBool(c.InUse), Shared: strconv.FormatBool(c.Shared), UsageCount: strconv.Itoa(c.UsageCount),
	}
	if c.LastUsedAt != nil {
		r.LastUsedAt, r.LastUsedSince = c.LastUsedAt.String(), format.Duration(now.Sub(*c.LastUsedAt))+" ago"
	}
	return r
}

// tables prints a table for each kind.
func (d details) tables(w io.Writer, u client.Usage) error {
	var images, containers, volumes, caches, others [][]string
	for _, r := range d.Images {
		images = append(images, []string{r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size, r.SharedSize, r.UniqueSize, r.Containers})
	}
	for _, r := range d.Containers {
		containers = append(containers, []string{r.ID, r.Image, r.Command, r.LocalVolumes, r.Size, r.RunningFor, r.Status, r.Names})
	}
	for _, r := range d.Volumes {
		volumes = append(volumes, []string{r.Name, r.Links, r.Size})
	}
	for _, r := range d.BuildCache {
		caches = append(caches, []string{r.ID, r.CacheType, r.Size, r.CreatedSince, r.LastUsedSince, r.UsageCount, r.Shared})
	}
	for _, r := range d.Other {
		others = append(others, []string{r.Name, strconv.FormatInt(r.Count, 10), format.FineSize(r.Size), format.FineSize(r.Reclaimable)})
	}
	for _, t := range []struct {
		title, heading string
		lines          [][]string
	}{
		{"Images space usage:", "REPOSITORY,TAG,IMAGE ID,CREATED,SIZE,SHARED SIZE,UNIQUE SIZE,CONTAINERS", images},
		{"\nContainers space usage:", "CONTAINER ID,IMAGE,COMMAND,LOCAL VOLUMES,SIZE,CREATED,STATUS,NAMES", containers},
		{"\nLocal Volumes space usage:", "VOLUME NAME,LINKS,SIZE", volumes},
		{"\nBuild cache usage: " + format.FineSize(u.BuildCacheUsage.TotalSize), "CACHE ID,CACHE TYPE,SIZE,CREATED,LAST USED,USAGE,SHARED", caches},
		{"\nOther space usage:", "KIND,COUNT,SIZE,RECLAIMABLE", others},
	} {
		if strings.HasPrefix(t.title, "\nOther") && u.Other == nil {
			continue
		}
		fmt.Fprintf(w, "%s\n\n", t.title)
		if err := format.Columns(w, strings.Split(t.heading, ","), t.lines); err != nil {
			return err
		}
	}
	if u.Other == nil {
		return nil
	}
	sum := u.ImageUsage.TotalSize + u.ContainerUsage.TotalSize + u.VolumeUsage.TotalSize + u.BuildCacheUsage.TotalSize + u.Other.TotalSize
	_, err := fmt.Fprintf(w, "\nAll of %s: %s (%d bytes)\n", u.Other.DataRoot, format.FineSize(sum), sum)
	return err
}
