package build

import (
	"maps"
	"testing"

	"berth/build/dockerfile"
	"berth/build/progress"
)

// TestReason changes a step in one way after another.
func TestReason(t *testing.T) {
	image := dockerfile.Base{Image: &dockerfile.Image{}}
	first := &dockerfile.Step{Number: 1, Do: &dockerfile.Run{FromArgs: []string{"VERSION"}}}
	third := &dockerfile.Step{Number: 3, Do: &dockerfile.Copy{}}
	old := map[string]string{"base": "1", "command": "run /bin/sh\x00-c\x00make", "env VERSION": "1", "env PATH": "/bin", "file app.py": "a", "file b": "b", "source 0": "x", "mount /m": "q", "user": ""}
	for name, c := range map[string]struct {
		step    *dockerfile.Step
		base    dockerfile.Base
		changes map[string]string // "-": the part is gone
		noCache bool
		want    string
	}{
		"a file":              {third, image, map[string]string{"file app.py": "b"}, false, "file app.py changed"},
		"a file and the base": {third, image, map[string]string{"file app.py": "b", "base": "2"}, false, "file app.py changed"},
		"another file":        {third, image, map[string]string{"file app.py": "-", "file new.py": "b", "source 0": "y"}, false, "file app.py is gone, file new.py is new"},
		"an argument":         {first, image, map[string]string{"env VERSION": "2"}, false, "ARG VERSION differs"},
		"a variable":          {first, image, map[string]string{"env PATH": "/sbin"}, false, "ENV PATH differs"},
		"base image":          {first, image, map[string]string{"base": "2"}, false, "base image is new"},
		"base image and more": {first, image, map[string]string{"base": "2", "user": "u"}, false, "base image is new, USER differs"},
		"step before":         {third, image, map[string]string{"base": "2"}, false, progress.Follows},
		"stage before":        {first, dockerfile.Base{Stage: &dockerfile.Stage{}}, map[string]string{"base": "2"}, false, progress.Follows},
		"named context":       {first, dockerfile.Base{Files: &dockerfile.Tree{Name: "src"}}, map[string]string{"base": "2"}, false, "build context src changed"},
		"command":             {first, image, map[string]string{"command": "run /bin/sh\x00-c\x00make all"}, false, "command differs"},
		"another command":     {first, image, map[string]string{"command": "run /bin/sh\x00-c\x00rm -r x"}, false, ""},
		"all is another":      {first, image, map[string]string{"command": "d", "base": "2"}, false, ""},
		"mount":               {first, image, map[string]string{"mount /m": "r"}, false, "--mount of /m differs"},
		"nothing":             {first, image, nil, false, "its result is not here any more"},
		"many":                {third, image, map[string]string{"file 1": "", "file 2": "", "file 3": "", "file 4": ""}, false, "file 1 is new, file 2 is new, file 3 is new and 1 more"},
		"without the cache":   {first, image, map[string]string{"command": "d"}, true, progress.NoCache},
	} {
		before := &entry{Place: "s 1 RUN", Parts: old}
		cache := &Cache{entries: map[string]*entry{"x": before}, latest: map[string]*entry{before.Place: before}}
		now := maps.Clone(old)
		for k, v := range c.changes {
			if now[k] = v; v == "-" {
				delete(now, k)
			}
		}
		w := &building{Builder: &Builder{Cache: cache}, Request: Request{NoCache: c.noCache}}
		d := &doing{building: w, s: &dockerfile.Stage{Name: "s", Base: c.base}, st: c.step, key: &key{place: before.Place, parts: now}}
		if got := d.reason(); got != c.want {
			t.Errorf("%s: %q, wanted %q", name, got, c.want)
		}
		d.key.place = "s 2 RUN" // it has moved, as another was put before it
		if got := d.reason(); now["command"] == old["command"] && got != c.want {
			t.Errorf("%s, moved: %q, wanted %q", name, got, c.want)
		}
	}
}
