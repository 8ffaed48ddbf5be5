package build

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"berth/cli/format"
	"berth/cli/session"
	"berth/fault"

	"github.com/spf13/pflag"
)

// calling is what is asked of a Dockerfile instead of building it.
type calling struct {
	what  string // a method, or method,format=FORMAT
	check bool
}

// calls are what can be asked.
var calls = []string{"build", "check", "outline", "targets"}

func (c *calling) flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.what, "call", "build", "Set method for evaluating build (\"build\", \"check\", \"outline\", \"targets\"), with \",format=json\" behind it for programs")
	fs.BoolVar(&c.check, "check", false, "Shorthand for \"--call=check\": look for mistakes, and build nothing")
}

// parse gives the method and the format, "text" or "json".
func (c *calling) parse() (method, form string, err error) {
	method, rest, _ := strings.Cut(c.what, ",")
	form = "text"
	for _, kv := range strings.Split(rest, ",") {
		switch k, v, _ := strings.Cut(kv, "="); k {
		case "":
		case "format":
			form = v
		default:
			return "", "", fault.New(fault.Invalid, "invalid value %q for --call: %s is not known, only format is", c.what, k)
		}
	}
	if method == "lint" || c.check && (method == "build" || method == "") {
		method = "check"
	}
	switch {
	case c.check && method != "check":
		return "", "", fault.New(fault.Invalid, "--check and --call=%s cannot be used together", method)
	case !slices.Contains(calls, method):
		return "", "", fault.New(fault.Invalid, "invalid value %q for --call: use one of %s", c.what, strings.Join(calls, ", "))
	case form != "text" && form != "json":
		return "", "", fault.New(fault.Invalid, "invalid value %q for --call: the format is text or json", c.what)
	}
	return method, form, nil
}

// apply says in a query what is asked, if it is not to build.
func (c *calling) apply(q url.Values) error {
	method, _, err := c.parse()
	if err == nil && method != "build" {
		q.Set("call", method)
	}
	return err
}

// none refuses to ask who can only build.
func (c *calling) none() error {
	if method, _, err := c.parse(); err != nil || method == "build" {
		return err
	}
	return fault.New(fault.Unsupported, "--call and --check need a daemon that is berth, and DOCKER_BUILDKIT not set to 0")
}

// answered prints an answer; is tells whether the result is one.
func (c *calling) answered(out io.Writer, result map[string]string) (is bool, err error) {
	method, form, err := c.parse()
	if err != nil || method == "build" {
		return false, err
	}
	text, failed := result["result.txt"], result["result.statuscode"] != "" && result["result.statuscode"] != "0"
	if form == "json" {
		text = result["result.json"] + "\n"
	} else if method == "check" {
		text = summary(result["result.json"]) + text
	}
	if _, err := io.WriteString(out, text); err != nil {
		return true, err
	}
	if failed {
		return true, &session.Exit{Code: 1}
	}
	return true, nil
}

// summary is what people see first of a check.
func summary(result string) string {
	var l struct {
		Warnings []json.RawMessage `json:"warnings"`
		Error    *struct{}         `json:"buildError"`
	}
	if json.Unmarshal([]byte(result), &l) != nil {
		return ""
	}
	switch n := len(l.Warnings); {
	case n == 1:
		return "Check complete, 1 warning has been found!\n"
	case n > 1:
		return fmt.Sprintf("Check complete, %s have been found!\n", format.Count(int64(n), "warning"))
	case l.Error != nil:
		return ""
	}
	return "Check complete, no warnings found.\n"
}
