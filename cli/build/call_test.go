package build

import (
	"bytes"
	"errors"
	"net/url"
	"testing"

	"berth/cli/session"
)

func TestCalls(t *testing.T) {
	for _, c := range []struct {
		what   string
		check  bool
		method string // in the query
		form   string
		fails  bool
	}{
		{what: "build", form: "text"},
		{what: "build", check: true, method: "check", form: "text"},
		{what: "lint,format=json", method: "check", form: "json"},
		{what: "outline,format=text", method: "outline", form: "text"},
		{what: "targets,format=json", method: "targets", form: "json"},
		{what: "targets", check: true, fails: true},
		{what: "dance", fails: true},
		{what: "outline,format=yaml", fails: true},
		{what: "outline,colour=red", fails: true},
	} {
		q := url.Values{}
		o := &calling{what: c.what, check: c.check}
		err := o.apply(q)
		_, form, _ := o.parse()
		if (err != nil) != c.fails || q.Get("call") != c.method || form != c.form {
			t.Errorf("%+v: %v %v %q", c, err, q, form)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		what   string
		result map[string]string
		want   string
		code   int
	}{
		{"check", map[string]string{"result.json": `{"warnings":[]}`, "result.statuscode": "0"}, "Check complete, no warnings found.\n", 0},
		{"check", map[string]string{"result.json": `{"warnings":[{}]}`, "result.txt": "\nW\n", "result.statuscode": "1"}, "Check complete, 1 warning has been found!\n\nW\n", 1},
		{"check", map[string]string{"result.json": `{"warnings":[{},{}]}`, "result.statuscode": "1"}, "Check complete, 2 warnings have been found!\n", 1},
		{"check", map[string]string{"result.json": `{"warnings":[],"buildError":{}}`, "result.txt": "\nERROR: x\n", "result.statuscode": "1"}, "\nERROR: x\n", 1},
		{"check,format=json", map[string]string{"result.json": `{"warnings":[{}]}`, "result.txt": "W", "result.statuscode": "1"}, "{\"warnings\":[{}]}\n", 1},
		{"targets", map[string]string{"result.json": "{}", "result.txt": "TARGET\n"}, "TARGET\n", 0},
	} {
		var out bytes.Buffer
		is, err := (&calling{what: c.what}).answered(&out, c.result)
		var exit *session.Exit
		if !is || out.String() != c.want || errors.As(err, &exit) != (c.code > 0) || exit != nil && exit.Code != c.code {
			t.Errorf("%+v: %v %q %v", c, is, out.String(), err)
		}
	}
	if is, err := (&calling{what: "build"}).answered(nil, nil); is || err != nil {
		t.Errorf("a build is an answer: %v", err)
	}
}
