package volume

import (
	"fmt"
	"time"

	"berth/cli/format"
	"berth/cli/session"
	"berth/client"

	"github.com/spf13/cobra"
)

// Snapshot is the command "volume snapshot".
func Snapshot(s *session.Session) *cobra.Command {
	var pause, remove bool
	cmd := &cobra.Command{
		Use: "snapshot [OPTIONS] VOLUME [NAME]", Args: session.Between(1, 2),
		Example: "volume snapshot data\nvolume snapshot --pause db before-upgrade\nvolume snapshot --rm db before-upgrade",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			if remove {
				if name == "" {
					return fmt.Errorf("name the snapshot to remove: '%s volume snapshots %s' lists them", session.Name, args[0])
				}
				if err := api.Volumes.RemoveSnapshot(cmd.Context(), args[0], name); err != nil {
					return s.OnlyOurs(err, "volume snapshot")
				}
				_, err = fmt.Fprintln(s.Out, name)
				return err
			}
			made, err := api.Volumes.Snapshot(cmd.Context(), args[0], name, pause)
			if err != nil {
				return s.OnlyOurs(err, "volume snapshot")
			}
			s.Warn(made.Warnings)
			_, err = fmt.Fprintln(s.Out, made.Name)
			return err
		},
	}
	cmd.Flags().BoolVar(&pause, "pause", false, pauseUsage)
	cmd.Flags().BoolVar(&remove, "rm", false, "Remove the snapshot of that name")
	return cmd
}

// Rollback is the command "volume rollback".
func Rollback(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "rollback VOLUME [SNAPSHOT]", Args: session.Between(1, 2), Example: "volume rollback data\nvolume rollback db before-upgrade",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			made, err := api.Volumes.Rollback(cmd.Context(), args[0], name)
			if err != nil {
				return s.OnlyOurs(err, "volume rollback")
			}
			s.Warn(made.Warnings)
			_, err = fmt.Fprintln(s.Out, made.Name)
			return err
		},
	}
}

// Snapshots is the command "volume snapshots".
func Snapshots(s *session.Session) *cobra.Command {
	var layout string
	var quiet bool
	cmd := &cobra.Command{
		Use: "snapshots [OPTIONS] [VOLUME...]", Example: "volume snapshots\nvolume snapshots data",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := s.API()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				all, err := api.Volumes.List(cmd.Context(), nil)
				if err != nil {
					return err
				}
				for _, v := range all.Volumes {
					args = append(args, v.Name)
				}
			}
			rows := []snapshotRow{}
			failure := s.Each(args, func(name string) error {
				all, err := api.Volumes.Snapshots(cmd.Context(), name)
				for _, one := range all {
					rows = append(rows, snapshotRowOf(one))
				}
				return s.OnlyOurs(err, "volume snapshots")
			})
			if err := snapshotTable.Print(s.Out, layout, quiet, rows); err != nil {
				return err
			}
			return failure
		},
	}
	cmd.Flags().StringVar(&layout, "format", "", format.Usage)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display snapshot names")
	return cmd
}

// snapshotRow is one snapshot; the fields are what templates may use.
type snapshotRow struct {
	CreatedAt    string
	CreatedSince string
	Name         string
	Shared       string
	Size         string
	Volume       string
}

var snapshotTable = &format.Table[snapshotRow]{
	Columns: []string{"VOLUME", "SNAPSHOT", "CREATED", "SIZE"},
	Cells:   func(r snapshotRow) []string { return []string{r.Volume, r.Name, r.CreatedSince, r.Size} },
	Heading: snapshotRow{CreatedAt: "CREATED AT", CreatedSince: "CREATED", Name: "SNAPSHOT", Shared: "SHARED", Size: "SIZE", Volume: "VOLUME"},
	Quiet:   func(r snapshotRow) string { return r.Name },
}

func snapshotRowOf(one client.Snapshot) snapshotRow {
	return snapshotRow{
		CreatedAt: one.Created.Local().Format(time.RFC3339), CreatedSince: format.Duration(time.Since(one.Created)) + " ago", Name: one.Name,
		Shared: fmt.Sprint(one.Shared), Size: format.Size(one.Size), Volume: one.Volume,
	}
}
