package dockerfile

import (
	"encoding/json"
	"maps"
	"slices"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// environment is the variables that instructions see, in the order in which they were first set.
type environment struct {
	keys   []string
	values map[string]string
}

// newEnvironment copies another one; nil: it is empty.
func newEnvironment(from *environment) *environment {
	e := &environment{values: map[string]string{}}
	if from != nil {
		e.keys, e.values = slices.Clone(from.keys), maps.Clone(from.values)
	}
	return e
}

func (e *environment) set(key, value string) {
	if _, ok := e.values[key]; !ok {
		e.keys = append(e.keys, key)
	}
	e.values[key] = value
}

// Get implements shell.EnvGetter.
func (e *environment) Get(key string) (string, bool) {
	v, ok := e.values[key]
	return v, ok
}

// Keys implements shell.EnvGetter.
func (e *environment) Keys() []string { return e.keys }

// list gives them as a program gets them.
func (e *environment) list() (all []string) {
	for _, k := range e.keys {
		all = append(all, k+"="+e.values[k])
	}
	return all
}

func emptyImage(p ocispec.Platform) dockerspec.DockerOCIImage {
	img := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: p}}
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	return img
}

// cloneImage copies settings, so that two stages on one base don't share them.
func cloneImage(from dockerspec.DockerOCIImage) (to dockerspec.DockerOCIImage) {
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, &to)
	}
	if err != nil { // plain data that came from JSON
		panic(err)
	}
	return to
}
