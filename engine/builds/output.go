package builds

import (
	"context"
	"slices"
	"strings"

	"berth/fault"
)

// Output is one way in which what was built is put out.
type Output struct {
	Name  string            // by which the client is asked where it goes; no two of a build are alike
	Type  string            // image, registry, oci, docker, local, tar or cacheonly
	Attrs map[string]string // options, as BuildKit's exporters have them
}

// outputTypes are those that there are.
var outputTypes = []string{"cacheonly", "docker", "image", "local", "oci", "registry", "tar"}

// check refuses what no output has.
func (o Output) check() error {
	if !slices.Contains(outputTypes, o.Type) {
		return fault.New(fault.Invalid, "output type %q: there are %s", o.Type, strings.Join(outputTypes, ", "))
	}
	return nil
}

// Export puts a result out, in all the ways that are asked for, and gives what BuildKit's exporters answer: containerimage.digest,
// containerimage.config.digest, containerimage.descriptor and image.name as far as there is an image. One that fails leaves those before it.
func (s *Service) Export(ctx context.Context, solved *Solved, list []Output, client Client, t Teller) (map[string]string, error) {
	for _, o := range list {
		if err := o.check(); err != nil {
			return nil, err
		}
	}
	answer := map[string]string{}
	for _, o := range list {
		if o.Type == "cacheonly" {
			continue
		}
		if o.Type != "image" {
			return nil, fault.New(fault.Unsupported, "output type %s is not supported by this version of berth", o.Type)
		}
		var names []string
		if text := o.Attrs["name"]; text != "" {
			names = strings.Split(text, ",")
		}
		tags, err := parseTags(names)
		if err != nil {
			return nil, err
		}
		img, err := s.keep(solved, tags)
		if err != nil {
			return nil, err
		}
		answer["containerimage.digest"], answer["containerimage.config.digest"] = img.ID.String(), img.ConfigID.String()
		if len(names) > 0 {
			answer["image.name"] = strings.Join(names, ",")
		}
	}
	return answer, nil
}
