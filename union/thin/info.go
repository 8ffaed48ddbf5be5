package thin

import (
	"os"
	"path/filepath"
	"strconv"

	"berth/fault"
	"berth/kernel"
	"berth/kernel/dm"
)

// Status returns the rows that `info` shows, named as Docker's.
func (t *Trees) Status() [][2]string {
	base, _ := t.find(baseName(t.options.fs))
	rows := [][2]string{
		{"Pool Name", t.pool.name},
		{"Pool Blocksize", human(t.blocks)},
	}
	if base != nil {
		rows = append(rows, [2]string{"Base Device Size", human(base.Bytes)})
	}
	rows = append(rows, [2]string{"Backing Filesystem", t.options.fs})
	s, err := t.state(false)
	if err != nil || !s.readable {
		return append(rows, [2]string{"Pool State", "can't be read"})
	}
	rows = append(rows, t.diskRows()...)
	available := int64(s.data.free()) * t.blocks
	if t.options.pool == "" && t.options.dataDev == "" {
		available = min(available, t.freeBelow())
	}
	version, _ := t.dm.Version()
	return append(rows, [][2]string{
		{"Data Space Used", human(int64(s.data.used) * t.blocks)},
		{"Data Space Total", human(int64(s.data.total) * t.blocks)},
		{"Data Space Available", human(available)},
		{"Metadata Space Used", human(int64(s.metadata.used) * metadataBlock)},
		{"Metadata Space Total", human(int64(s.metadata.total) * metadataBlock)},
		{"Metadata Space Available", human(int64(s.metadata.free()) * metadataBlock)},
		{"Thin Pool Minimum Free Space", human(int64(s.data.total) * t.options.minFree / 100 * t.blocks)},
		{"Udev Sync Supported", "false"}, // nothing waits for udev
		{"Deferred Removal Enabled", strconv.FormatBool(t.options.deferred)},
		{"Deferred Deletion Enabled", "true"},
		{"Driver Version", version},
	}...)
}

// diskRows names what the pool lies on.
func (p *pool) diskRows() [][2]string {
	switch {
	case p.options.pool != "":
		return nil
	case p.options.dataDev != "":
		return [][2]string{{"Data file", p.options.dataDev}, {"Metadata file", p.options.metadataDev}}
	}
	rows := [][2]string{}
	table, err := p.dm.Table(p.name)
	if metadata, data, ok := disks(table); err == nil && ok {
		rows = append(rows, [2]string{"Data file", device(data)}, [2]string{"Metadata file", device(metadata)})
	}
	return append(rows, [2]string{"Data loop file", p.path("data")}, [2]string{"Metadata loop file", p.path("metadata")})
}

// disks reads the numbers of the pool's disks off its table.
func disks(table []dm.Target) (metadata, data string, ok bool) {
	if len(table) != 1 {
		return "", "", false
	}
	f, err := fields(table[0].Params, 2)
	if err != nil {
		return "", "", false
	}
	return f[0], f[1], true
}

// device is the name of a disk by its numbers; the numbers when the kernel tells no name.
func device(numbers string) string {
	link, err := os.Readlink("/sys/dev/block/" + numbers)
	if err != nil {
		return numbers
	}
	return "/dev/" + filepath.Base(link)
}

// freeBelow is how much the file system of the data file can still take.
func (p *pool) freeBelow() int64 {
	dir, err := os.Open(p.dir)
	if err != nil {
		return 0
	}
	free, err := kernel.FreeSpace(dir)
	fault.Close(dir, &err)
	if err != nil {
		return 0
	}
	return free
}
