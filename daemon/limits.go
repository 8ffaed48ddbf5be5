package daemon

import (
	"encoding/json"
	"net/http"

	"berth/engine"
	"berth/fault"

	"github.com/moby/moby/api/types/container"
)

// stats sends its header at once, as clients of a stream wait for it.
func (s containers) stats(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o := engine.StatsRequest{Stream: q.Get("stream") == "" || flag(q, "stream"), OneShot: flag(q, "one-shot")}
	if o.Stream && o.OneShot {
		return fault.New(fault.Invalid, "cannot have stream=true and one-shot=true")
	}
	out := newLines(w)
	return s.engine.Stats(r.Context(), r.PathValue("id"), o, func() error { return begin(w, "application/json") },
		func(sample *container.StatsResponse) error { return out.write(sample) })
}

// oldLimits warns of limits that clients of earlier versions send, and no kernel or engine holds any more.
func oldLimits(data []byte) (warnings []string) {
	var old struct {
		HostConfig struct{ KernelMemory, KernelMemoryTCP int64 }
	}
	if json.Unmarshal(data, &old) != nil {
		return nil
	}
	if old.HostConfig.KernelMemory > 0 {
		warnings = append(warnings, "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
	}
	if old.HostConfig.KernelMemoryTCP > 0 {
		warnings = append(warnings, "Your kernel does not support kernel memory TCP limit capabilities or the cgroup is not mounted. Limitation discarded.")
	}
	return warnings
}

// updateBody is the API's update request with our own changes beside the limits.
type updateBody struct {
	container.UpdateConfig
	Berth engine.Changes
}

// updateAnswer is the API's, and how the change reached the container.
type updateAnswer struct {
	Warnings []string
	Berth    updateWay `json:",omitzero"`
}

type updateWay struct {
	Way engine.Way `json:",omitempty"`
}

func (s containers) update(w http.ResponseWriter, r *http.Request) error {
	var body updateBody
	if err := readJSON(r, &body, false); err != nil {
		return err
	}
	if versionOf(r) < 40 {
		body.PidsLimit = nil // clients that can't know of it send zero
	}
	result, err := s.engine.Update(r.Context(), r.PathValue("id"), engine.UpdateRequest{
		Resources: body.Resources, RestartPolicy: body.RestartPolicy, Changes: body.Berth,
	})
	if err != nil {
		return err
	}
	if result.Warnings == nil {
		result.Warnings = []string{}
	}
	return writeJSON(w, http.StatusOK, updateAnswer{result.Warnings, updateWay{result.Way}})
}
