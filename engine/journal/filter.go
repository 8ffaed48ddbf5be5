package journal

import (
	"slices"
	"strings"

	"berth/fault"

	"github.com/moby/moby/api/types/events"
)

// Filters is the field's filter syntax, parsed: key to wanted values.
type Filters map[string][]string

func filterKeys() []string {
	return []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}
}

// check is fault.Invalid for a key that events don't have.
func (f Filters) check() error {
	for key := range f {
		if !slices.Contains(filterKeys(), key) {
			return fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
}

// fits tells whether an event passes the filters: all keys must hold, any value of each, but every label.
func (f Filters) fits(m events.Message) bool {
	for key, values := range f {
		ok := len(values) == 0 || key == "label" && !slices.ContainsFunc(values, func(v string) bool { return !HasLabel(m.Actor.Attributes, v) })
		for _, v := range values {
			switch key {
			case "event":
				action, _, _ := strings.Cut(string(m.Action), ":") // "health_status: healthy" is of health_status too
				ok = ok || string(m.Action) == v || action == v
			case "type":
				ok = ok || string(m.Type) == v
			case "scope":
				ok = ok || m.Scope == v
			case "image":
				ok = ok || m.Type == events.ImageEventType && refersTo(m, v) || isImage(m.Actor.Attributes["image"], v)
			case "label":
			default: // the object's own kind
				ok = ok || string(m.Type) == key && refersTo(m, v)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// refersTo tells whether ref names the event's object, by ID, its beginning or name.
func refersTo(m events.Message, ref string) bool {
	return ref != "" && (strings.HasPrefix(m.Actor.ID, ref) || m.Actor.Attributes["name"] == strings.TrimPrefix(ref, "/") ||
		m.Type == events.ImageEventType && isImage(m.Actor.Attributes["name"], ref))
}

// isImage compares image names, where one without tag fits any tag.
func isImage(name, want string) bool {
	if name == want {
		return name != ""
	}
	colon := strings.LastIndexByte(name, ':')
	return colon > strings.LastIndexByte(name, '/') && name[:colon] == want
}

// HasLabel tells whether labels have "key" or "key=value".
func HasLabel(labels map[string]string, want string) bool {
	key, value, hasValue := strings.Cut(want, "=")
	have, ok := labels[key]
	return ok && (!hasValue || have == value)
}
