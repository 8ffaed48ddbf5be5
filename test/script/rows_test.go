package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"berth/test/testengine"

	"github.com/moby/buildkit/frontend/dockerfile/command"
)

// row is a line of README.md's tables: what is promised, the file that shows it, and the words there to look for.
type row struct{ name, file, words string }

func rows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []row
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || cells[0] == "row" {
			continue
		}
		all = append(all, row{cells[0], cells[1], strings.Trim(cells[2], "`")})
	}
	return all
}

// TestEveryRowHasItsScenario looks in the files that README.md names for what they are to show.
func TestEveryRowHasItsScenario(t *testing.T) {
	all := rows(t)
	if len(all) < 300 {
		t.Fatalf("README.md has only %d rows", len(all))
	}
	for _, r := range all {
		if reason, ok := strings.CutPrefix(r.file, "not applicable:"); ok {
			if strings.TrimSpace(reason) == "" {
				t.Errorf("%s: not applicable without a reason", r.name)
			}
			continue
		}
		path := filepath.Join("testdata", r.file)
		if strings.Contains(r.file, "/") {
			path = filepath.Join("../..", r.file)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
			continue
		}
		if r.words == "" || !slices.ContainsFunc(strings.Split(string(text), "\n"), r.shows()) {
			t.Errorf("%s: %s has no %q", r.name, r.file, r.words)
		}
	}
}

// shows tells a line that shows what the row is about: an option must be given to its own command.
func (r row) shows() func(line string) bool {
	command, _, isOption := strings.Cut(r.name, " -")
	if !isOption || command == "option" || command == "old spelling" || strings.HasPrefix(command, "option ") {
		return func(line string) bool { return !strings.HasPrefix(line, "#") && strings.Contains(line, r.words) }
	}
	switch command = strings.TrimPrefix(command, "container "); command {
	case "run":
		command = "(?:run|create)"
	case "ps":
		command = "(?:ps|ls|list)"
	case "images":
		command = "(?:images|ls|list)"
	case "rmi":
		command = "(?:rmi|rm|remove)"
	}
	given := regexp.MustCompile(`\bberth (?:container |system |image )?` + command + `\s(?:[^;|&]*\s)?` + regexp.QuoteMeta(r.words) + `(?:[=\s]|$)`)
	return func(line string) bool { return !strings.HasPrefix(line, "#") && given.MatchString(line) }
}

// options are an option's line in a command's help: its short name, if any, and its long one.
var options = regexp.MustCompile(`(?m)^ +(?:(-\w), )?(--[a-z0-9-]+)`)

// TestEveryOptionHasARow asks the program what commands about containers, images and registries there are, and their options.
func TestEveryOptionHasARow(t *testing.T) {
	bin := filepath.Join(testengine.Programs(t), "berth")
	help := func(args ...string) string {
		out, err := exec.Command(bin, append([]string{"help"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("help %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	known := map[string]bool{}
	for _, r := range rows(t) {
		known[r.name] = true
	}
	commands := regexp.MustCompile(`(?m)^  (\w+) +\w`).FindAllStringSubmatch(help("container"), -1)
	if len(commands) < 25 {
		t.Fatalf("help lists only %d commands of containers", len(commands))
	}
	check := func(name string, command ...string) {
		if !known[name] {
			t.Errorf("%s has no row", name)
		}
		for _, o := range options.FindAllStringSubmatch(help(command...), -1) {
			r := name + " " + strings.TrimPrefix(strings.Join(o[1:], ", "), ", ")
			if o[2] != "--help" && !known[r] {
				t.Errorf("%s has no row", r)
			}
		}
	}
	for _, c := range commands {
		name := c[1]
		switch name {
		case "create":
			continue // the options are run's
		case "ls":
			name = "ps"
		case "prune":
			name = "container prune"
		}
		check(name, "container", c[1])
	}
	for _, group := range []string{"image", "manifest"} {
		for _, c := range regexp.MustCompile(`(?m)^  (\w+) +\w`).FindAllStringSubmatch(help(group), -1) {
			name := c[1]
			switch {
			case group == "image" && name == "ls":
				name = "images"
			case group == "image" && name == "rm":
				name = "rmi"
			case group != "image" || slices.Contains([]string{"diff", "explore", "inspect", "prune"}, name):
				name = group + " " + name
			}
			check(name, group, c[1])
		}
	}
	for _, name := range []string{"builder prune", "events", "login", "logout", "search", "system df", "system fsck", "system prune", "volume prune"} {
		check(name, strings.Fields(name)...)
	}
}

// TestTheDockerfileHasItsRows asks the package that reads Dockerfiles what instructions there are.
func TestTheDockerfileHasItsRows(t *testing.T) {
	known := map[string]bool{}
	for _, r := range rows(t) {
		known[r.name] = true
	}
	for name := range command.Commands {
		if r := "instruction " + strings.ToUpper(name); !known[r] {
			t.Errorf("%s has no row", r)
		}
	}
}
