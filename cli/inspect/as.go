package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"berth/cli/create"
	"berth/cli/session"
	"berth/client"
	"berth/fault"

	"github.com/moby/moby/api/types/image"
)

const asUsage = `Print what makes the container again: a command ("run"), a compose file ("compose") or a systemd service ("unit")`

// inspectAs prints containers as what makes them.
func inspectAs(ctx context.Context, s *session.Session, o *inspectOptions, args []string) error {
	switch {
	case o.as != "run" && o.as != "compose" && o.as != "unit":
		return fmt.Errorf("invalid value %q for --as: use run, compose or unit", o.as)
	case o.format != "":
		return errors.New("conflicting options: --as prints in a form of its own and can't be combined with --format")
	case o.size:
		return errors.New("conflicting options: --as has no use for --size")
	case o.kind != "" && o.kind != "container":
		return fmt.Errorf("conflicting options: --as is for containers and can't be combined with --type %s", o.kind)
	}
	api, err := s.API()
	if err != nil {
		return err
	}
	info, err := api.System.Info(ctx)
	if err != nil {
		return err
	}
	around := create.Surroundings{Host: info.Name, LogDriver: info.LoggingDriver, Runtime: info.DefaultRuntime}
	var all []create.Origin
	failure := s.Each(args, func(ref string) error {
		found, err := origin(ctx, s, api, ref, around)
		if err == nil {
			all = append(all, found)
		}
		return err
	})
	if err := printOrigins(s, o.as, all); err != nil {
		return err
	}
	return failure
}

// origin finds out what made one container.
func origin(ctx context.Context, s *session.Session, api *client.Client, ref string, around create.Surroundings) (create.Origin, error) {
	c, err := api.Containers.Get(ctx, ref)
	if err != nil {
		return create.Origin{}, err
	}
	raw, err := api.Images.Inspect(ctx, c.Image, "")
	switch {
	case err == nil:
		var img image.InspectResponse
		if err := json.Unmarshal(raw, &img); err != nil {
			return create.Origin{}, fmt.Errorf("read the daemon's answer about image %s: %w", c.Image, err)
		}
		around.Image = img.Config
	case errors.Is(err, fault.NotFound):
		s.Warn([]string{fmt.Sprintf("the image of %s is gone: what it gave the container is printed as if it had been asked for", ref)})
	default:
		return create.Origin{}, err
	}
	return create.Recover(c, around), nil
}

func printOrigins(s *session.Session, as string, all []create.Origin) error {
	text := ""
	switch {
	case len(all) == 0:
	case as == "compose":
		text = create.Compose(all)
	case as == "run":
		for i := range all {
			text += all[i].Shell(session.Name)
		}
	default:
		program := programPath()
		for i := range all {
			if i > 0 {
				text += "\n"
			}
			text += all[i].Unit(program)
		}
	}
	_, err := fmt.Fprint(s.Out, text)
	return err
}

// programPath is where a service finds this program: where PATH leads, as that outlives an upgrade, else where it is now.
func programPath() string {
	if path, err := exec.LookPath(session.Name); err == nil && filepath.IsAbs(path) {
		return path
	}
	if path, err := os.Executable(); err == nil && filepath.Base(path) == session.Name {
		return path
	}
	return "/usr/bin/" + session.Name
}
