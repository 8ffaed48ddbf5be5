package request

import (
	"maps"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
)

// ImageConfig is what an image made of a container gets: the container's config with more, which may be nil, over it, as far as
// images have such fields.
func ImageConfig(c, more *api.Config) (dockerspec.DockerOCIImageConfig, error) {
	own := imageConfig(c)
	if more == nil {
		return own, nil
	}
	merged, err := Merge(more, own)
	if err != nil {
		return own, err
	}
	return imageConfig(merged), nil
}

// imageConfig is what an image keeps of a container's config.
func imageConfig(c *api.Config) dockerspec.DockerOCIImageConfig {
	var i dockerspec.DockerOCIImageConfig
	i.User, i.WorkingDir, i.StopSignal = c.User, c.WorkingDir, c.StopSignal
	i.Env, i.Entrypoint, i.Cmd = append([]string(nil), c.Env...), c.Entrypoint, c.Cmd
	i.Volumes, i.OnBuild, i.Shell, i.Healthcheck = maps.Clone(c.Volumes), append([]string(nil), c.OnBuild...), c.Shell, c.Healthcheck
	i.Labels = maps.Clone(c.Labels)
	for p := range c.ExposedPorts {
		if i.ExposedPorts == nil {
			i.ExposedPorts = map[string]struct{}{}
		}
		i.ExposedPorts[p.String()] = struct{}{}
	}
	return i
}
