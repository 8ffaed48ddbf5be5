package script

import (
	"path/filepath"

	"berth/volume/plugin/plugintest"

	"github.com/rogpeppe/go-internal/testscript"
)

// volumeplugin NAME serves a volume plugin of that name until the script ends; its volumes are directories of $WORK/NAME.
func volumeplugin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: volumeplugin NAME")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(ts.Exec("mkdir", dir))
	p := &plugintest.Plugin{Dir: dir, Scope: "global"}
	stop, err := p.Serve(filepath.Join("/run/docker/plugins", args[0]+".sock"))
	ts.Check(err)
	ts.Defer(func() { ts.Check(stop()) })
}
