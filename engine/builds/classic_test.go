package builds

import (
	"strings"
	"testing"

	"berth/build"
	"berth/build/dockerfile"
)

// TestClassicOfSeveralPlatforms: the steps of all plans are counted in a row, also when those of a later one are done first.
func TestClassicOfSeveralPlatforms(t *testing.T) {
	var out strings.Builder
	c := &Classic{Out: func(s string) { out.WriteString(s) }}
	c.Read("Dockerfile", nil, 2)
	var stages []*dockerfile.Stage
	for _, name := range []string{"one", "two"} {
		s := &dockerfile.Stage{Text: "FROM " + name, Steps: []*dockerfile.Step{{Text: "RUN " + name, Do: &dockerfile.Run{}}}}
		stages = append(stages, s)
		c.Plan(&dockerfile.Plan{Stages: []*dockerfile.Stage{s}, Target: s})
	}
	for _, s := range []*dockerfile.Stage{stages[1], stages[0]} {
		for _, kind := range []build.EventKind{build.Began, build.Finished} {
			c.Event(build.Event{Kind: kind, Stage: s, Step: s.Steps[0]})
		}
	}
	want := "Step 1/4 : FROM one\nStep 2/4 : RUN one\n ---> Running\nStep 3/4 : FROM two\nStep 4/4 : RUN two\n ---> Running\n"
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}
