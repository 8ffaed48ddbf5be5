package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/testengine"
)

// Two engines that share nothing make the same image of the same input: what a program writes in another order, at another time, by other
// processes, leaves no trace.
func TestEqualInputGivesEqualImages(t *testing.T) {
	const dockerfile = `FROM scratch AS base
ADD busybox.tar /
FROM base
ARG SOURCE_DATE_EPOCH
RUN --mount=type=bind,target=/how mkdir /d && for n in $(cat /how/order); do echo $n >/d/$n; done && ln /d/1 /d/link && ln -s /d/2 /d/symbolic && mkfifo /d/pipe
RUN --mount=type=bind,target=/how rm /d/3 && for n in $(seq $(cat /how/processes)); do true & wait; done; chown 5:6 /d/1 && chmod 4755 /d/2 && date -d @$SOURCE_DATE_EPOCH >/d/date
WORKDIR /d/new
`
	made := map[string]bool{}
	for _, c := range []struct{ order, processes string }{{"1 2 3 4 5", "1"}, {"5 3 4 1 2", "20"}} {
		t.Run(c.order, func(t *testing.T) {
			e := testengine.Start(t)
			dir := t.TempDir()
			if out, err := exec.Command("cp", testengine.BusyboxTar(t), filepath.Join(dir, "busybox.tar")).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			// The order and the number are no part of the image: they only say how it is made.
			for name, text := range map[string]string{"Dockerfile": dockerfile, "order": c.order, "processes": c.processes} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			id := filepath.Join(t.TempDir(), "id")
			e.Run(t, "build", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1234567890", "-o", "type=image,name=same,rewrite-timestamp=true", "--iidfile", id, "--provenance=true", dir)
			got, err := os.ReadFile(id)
			if err != nil {
				t.Fatal(err)
			}
			made[string(got)] = true
			if out := e.Run(t, "run", "--rm", "same", "stat", "-c", "%Y", "/d", "/d/1", "/d/symbolic", "/d/pipe", "/d/new"); strings.Count(out, "1234567890") != 5 {
				t.Errorf("times %s", out)
			}
		})
	}
	if len(made) != 1 {
		t.Errorf("the images are %v", made)
	}
}
