package volume

import (
	"errors"
	"fmt"
	"maps"

	"berth/cli/flag"
	"berth/cli/session"
	"berth/fault"

	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"
)

// clusterFlags are the options that only a volume of a swarm can have.
var clusterFlags = []string{"availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing", "topology-preferred", "topology-required", "type"}

// Create is the command "volume create".
func Create(s *session.Session) *cobra.Command {
	var driver, name string
	var options, labels map[string]string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Args: session.Between(0, 1),
		Example: `volume create data
volume create --label team=blue data
volume create -o type=none -o o=bind -o device=/srv/data data
volume create -o type=tmpfs -o device=tmpfs -o o=size=100m,uid=1000 scratch
volume create -o type=nfs -o o=addr=files.example.org,rw,nfsvers=4 -o device=:/export/data data
volume create -o type=ext4 -o device=/dev/vdb data`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if cmd.Flags().Changed("name") {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				name = args[0]
			}
			for _, f := range clusterFlags {
				if cmd.Flags().Changed(f) {
					return fault.New(fault.Unsupported, "--%s is for the volumes of a swarm, and this engine is in none: leave it out", f)
				}
			}
			api, err := s.API()
			if err != nil {
				return err
			}
			r := volume.CreateRequest{Name: name, Driver: driver, DriverOpts: options, Labels: labels}
			made, err := api.Volumes.Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			if !maps.Equal(made.Options, options) && len(options) > 0 {
				s.Warn([]string{fmt.Sprintf("volume %s was there before and keeps its options; remove it first for other ones", made.Name)})
			}
			_, err = fmt.Fprintln(s.Out, made.Name)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&name, "name", "", "Specify volume name")
	fs.MarkHidden("name")
	fs.Var(flag.Pairs(&labels, nil), "label", "Set metadata for a volume")
	fs.VarP(flag.Pairs(&options, nil), "opt", "o", "Set driver specific options")
	var text string
	var texts []string
	fs.StringVar(&text, "availability", "active", `Cluster Volume availability ("active", "pause", "drain")`)
	fs.StringVar(&text, "group", "", "Cluster Volume group (cluster volumes)")
	fs.StringVar(&text, "limit-bytes", "", "Maximum size of the Cluster Volume in bytes")
	fs.StringVar(&text, "required-bytes", "", "Minimum size of the Cluster Volume in bytes")
	fs.StringVar(&text, "scope", "single", `Cluster Volume access scope ("single", "multi")`)
	fs.StringVar(&text, "sharing", "none", `Cluster Volume access sharing ("none", "readonly", "onewriter", "all")`)
	fs.StringVar(&text, "type", "block", `Cluster Volume access type ("mount", "block")`)
	fs.Var(flag.List(&texts), "secret", "Cluster Volume secrets")
	fs.Var(flag.List(&texts), "topology-preferred", "A topology that the Cluster Volume would be preferred in")
	fs.Var(flag.List(&texts), "topology-required", "A topology that the Cluster Volume must be accessible from")
	return cmd
}

// Update is the command "volume update".
func Update(s *session.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use: "update [OPTIONS] [VOLUME]", Args: session.Between(0, 1), Example: "volume update --availability drain data",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				api, err := s.API()
				if err != nil {
					return err
				}
				if _, err := api.Volumes.Inspect(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			return fault.New(fault.Unsupported, "can only update cluster volumes: they are a swarm's, and this engine is in none")
		},
	}
	cmd.Flags().String("availability", "active", `Cluster Volume availability ("active", "pause", "drain")`)
	return cmd
}
