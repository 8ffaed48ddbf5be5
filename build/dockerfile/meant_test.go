package dockerfile

import "testing"

// TestGivenArguments: an argument that nothing takes is told of, as it may be misspelt.
func TestGivenArguments(t *testing.T) {
	const text = "ARG TAG=x\nFROM busybox AS a\nARG ONE\nFROM busybox\nRUN true"
	var told []string
	given := func(o *Options) {
		o.Args = map[string]string{"TAG": "1", "ONE": "1", "TWO": "1", "ZWO": "1", "http_proxy": "x", "TARGETARCH": "amd64", "BUILDKIT_INLINE_CACHE": "1", "SOURCE_DATE_EPOCH": "1"}
		o.Warn = func(w Warning) { told = append(told, w.Rule+": "+w.Detail) }
	}
	if _, err := plan(text, base(), given); err != nil {
		t.Fatal(err)
	}
	if want := "UnusedBuildArg: One or more build-args [TWO ZWO] were not consumed"; len(told) != 1 || told[0] != want {
		t.Errorf("%q", told)
	}
}
