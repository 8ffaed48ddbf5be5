package build

import (
	"fmt"
	"slices"
	"strings"

	"berth/build/dockerfile"
	"berth/build/progress"
)

// like gives the newest result of the same step as it was: at its place, or with its command elsewhere in its stage; nil when there is none.
func (c *Cache) like(k *key) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	here := c.latest[k.place]
	if here != nil && here.Parts["command"] == k.parts["command"] {
		return here.Parts
	}
	stage, _, _ := strings.Cut(k.place, " ")
	var best *entry
	for _, e := range c.entries {
		if strings.HasPrefix(e.Place, stage+" ") && e.Parts["command"] == k.parts["command"] && (best == nil || e.Made.After(best.Made)) {
			best = e
		}
	}
	switch {
	case best != nil:
		return best.Parts
	case here != nil && here.Parts["base"] == k.parts["base"] && alike(here.Parts["command"], k.parts["command"]):
		return here.Parts
	}
	return nil
}

// alike tells whether a command may be another one changed: at least half of their words are the same.
func alike(a, b string) bool {
	words := func(s string) []string {
		_, s, _ = strings.Cut(s, "-c\x00") // behind what all scripts begin with
		return strings.Fields(s)
	}
	before, now := words(a), words(b)
	same := 0
	for _, w := range now {
		if slices.Contains(before, w) {
			same++
		}
	}
	return 2*same >= max(len(before), len(now))
}

// maxReasons is how many changes are told one by one.
const maxReasons = 3

// reason says in a few words why the step is not in the cache; "" when nothing like it was ever done.
func (d *doing) reason() string {
	if d.NoCache || d.s.NoCache {
		return progress.NoCache
	}
	before := d.Cache.like(d.key)
	if before == nil {
		return ""
	}
	changes := d.changes(before)
	switch n := len(changes); {
	case before["base"] != d.key.parts["base"] && (n == 0 || d.begins() != progress.Follows):
		changes = append([]string{d.begins()}, changes...)
	case n == 0:
		return "its result is not here any more"
	}
	if n := len(changes); n > maxReasons {
		return strings.Join(changes[:maxReasons], ", ") + fmt.Sprintf(" and %d more", n-maxReasons)
	}
	return strings.Join(changes, ", ")
}

// begins says what it means that the tree which the step begins with is another.
func (d *doing) begins() string {
	if d.st.Number == 1 {
		switch b := d.s.Base; {
		case b.Image != nil:
			return "base image is new"
		case b.Files != nil:
			return "build context " + b.Files.Name + " changed"
		}
	}
	return progress.Follows
}

// changes names what differs but the tree, in order: files first.
func (d *doing) changes(before map[string]string) []string {
	var all []string
	add := func(name, what string) {
		if text := d.words(name, what); text != "" && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	for name, value := range d.key.parts {
		old, ok := before[name]
		switch {
		case !ok:
			add(name, "is new")
		case old != value:
			add(name, "changed")
		}
	}
	for name := range before {
		if _, ok := d.key.parts[name]; !ok {
			add(name, "is gone")
		}
	}
	files := func(s string) bool { return strings.HasPrefix(s, "file") }
	if slices.ContainsFunc(all, files) { // by which it is said already
		all = slices.DeleteFunc(all, func(s string) bool { return s == sourcesChanged })
	}
	slices.SortFunc(all, func(a, b string) int {
		if files(a) != files(b) {
			if files(a) {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return all
}

const sourcesChanged = "what it copies is called otherwise"

// words say what is new about a part of a key; "" when it is told elsewhere.
func (d *doing) words(name, what string) string {
	kind, rest, _ := strings.Cut(name, " ")
	switch kind {
	case "base":
		return ""
	case "command":
		if _, is := d.st.Do.(*dockerfile.Copy); is {
			return "its options or its destination differ"
		}
		return "command differs"
	case "env":
		instruction := "ENV "
		if run, is := d.st.Do.(*dockerfile.Run); is && slices.Contains(run.FromArgs, rest) {
			instruction = "ARG "
		}
		if what == "changed" {
			what = "differs"
		}
		return instruction + rest + " " + what
	case "user", "directory", "network", "security", "hosts", "shm", "ulimits", "rights":
		return map[string]string{"user": "USER", "directory": "WORKDIR", "network": "--network", "security": "--security", "hosts": "--add-host",
			"shm": "--shm-size", "ulimits": "--ulimit", "rights": "--security-opt"}[kind] + " differs"
	case "source":
		return sourcesChanged
	case "document":
		return "here-document " + rest + " " + what
	case "mount":
		return "--mount of " + rest + " " + strings.ReplaceAll(what, "changed", "differs")
	}
	return name + " " + what
}
