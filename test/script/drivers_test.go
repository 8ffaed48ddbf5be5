package script

import (
	"os"
	"path/filepath"
	"testing"

	"berth/fault"
	"berth/internal/kerneltest"
	"berth/union"
)

// onDrivers are the scenarios of what a storage driver decides.
var onDrivers = []string{"driver"}

// moreOnDrivers are those of the long tests. What tells sizes is not among them: a copy takes more than a layer.
var moreOnDrivers = []string{"buildmounts", "builduserns", "commit", "cp", "cpmore", "create", "debug", "debugmore", "diff", "images", "imagesmore", "lifecycle", "look", "lookapi", "looktree", "prunemore", "restart", "restore", "run", "runtime", "update", "updatemore", "userns", "usernsfiles", "usernsremap"}

// TestScenariosOnDrivers types scenarios for daemons on each storage driver that this machine has.
func TestScenariosOnDrivers(t *testing.T) {
	kerneltest.Root(t)
	names := onDrivers
	if os.Getenv("BERTH_SOAK") != "" {
		names = append(names, moreOnDrivers...)
	}
	var files []string
	for _, n := range names {
		files = append(files, filepath.Join("testdata", n+".txtar"))
	}
	for _, driver := range union.Drivers() {
		t.Run(driver, func(t *testing.T) {
			top := ""
			switch driver {
			case "btrfs":
				top = kerneltest.Disk(t, "btrfs", 4<<30, nil, "")
			case "zfs":
				_, top = kerneltest.Pool(t, 4<<30)
			default:
				top = t.TempDir()
			}
			d, err := union.Open(driver, filepath.Join(top, "d"))
			if fault.Of(err) == fault.Unsupported {
				t.Skip(err) // says what is missing
			}
			if err == nil {
				err = d.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			scenarios(t, client{name: "berth", driver: driver, top: top}, files)
		})
	}
}
