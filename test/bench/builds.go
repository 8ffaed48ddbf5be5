package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// buildkitName is docker.io once more, with its other builder: measured at builds only.
const buildkitName = "buildkit"

// buildMeasurements are builds as a whole process of the client. Each brings a text that no build had before, so that only what is meant is cached.
var buildMeasurements = []measurement{
	{name: "build, 10 RUN steps, cold", unit: "ms", builds: true, run: func(e engine) (float64, error) {
		return building(e, tenSteps(stamp(), stamp()))
	}},
	{name: "build, 10 RUN steps, cached", unit: "ms", builds: true, run: func(e engine) (float64, error) {
		text := tenSteps("cached", "cached")
		if _, err := building(e, text); err != nil {
			return 0, err
		}
		return building(e, text)
	}},
	{name: "build, step 5 of 10 changed", unit: "ms", builds: true, run: func(e engine) (float64, error) {
		if _, err := building(e, tenSteps("cached", "cached")); err != nil {
			return 0, err
		}
		return building(e, tenSteps("cached", stamp()))
	}},
	{name: "build, 1 of 10,000 files sent", unit: "ms", builds: true, run: func(e engine) (float64, error) {
		return manyFilesBuild(e, "FROM scratch\nCOPY one /one\n")
	}},
	{name: "build, COPY . of 10,000 files", unit: "ms", builds: true, slow: true, run: func(e engine) (float64, error) {
		return manyFilesBuild(e, "FROM scratch\nCOPY . /\n")
	}},
}

func stamp() string { return fmt.Sprint(time.Now().UnixNano()) }

// tenSteps is a Dockerfile of ten small programs; early is in the first four of them, late in the others.
func tenSteps(early, late string) string {
	var b strings.Builder
	b.WriteString("FROM busybox\n")
	for n := 1; n <= 10; n++ {
		word := early
		if n >= 5 {
			word = late
		}
		fmt.Fprintf(&b, "RUN echo %s > /step%d\n", word, n)
	}
	return b.String()
}

// building builds a Dockerfile in a directory that has nothing else.
func building(e engine, dockerfile string) (float64, error) {
	dir := filepath.Join(e.common().dir, "small-context")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return 0, err
	}
	return timed(e.client("build", "-q", "-t", "built", dir))
}

// manyFilesBuild builds twice with 10,000 files of 1 to 8 KB beside the Dockerfile, one of which changes between.
func manyFilesBuild(e engine, dockerfile string) (float64, error) {
	dir := filepath.Join(e.common().dir, "large-context")
	if _, err := os.Stat(dir); err != nil {
		for n := range 10000 {
			sub := filepath.Join(dir, fmt.Sprint("d", n/100))
			if n%100 == 0 {
				if err := os.MkdirAll(sub, 0o755); err != nil {
					return 0, err
				}
			}
			text := strings.Repeat(fmt.Sprintf("line of file %d\n", n), 64+n%448)
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", n)), []byte(text), 0o644); err != nil {
				return 0, err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return 0, err
	}
	took := 0.0
	for range 2 {
		if err := os.WriteFile(filepath.Join(dir, "one"), []byte(stamp()), 0o644); err != nil {
			return 0, err
		}
		var err error
		if took, err = timed(e.client("build", "-q", "-t", "built", dir)); err != nil {
			return 0, err
		}
	}
	return took, nil
}
