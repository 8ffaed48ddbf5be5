package thin

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"berth/fault"
)

// options are the driver's, by the names that Docker's has for them.
type options struct {
	baseSize     int64
	loopData     int64
	loopMetadata int64
	fs           string // "ext4" or "xfs"
	mkfs         []string
	mount        []string
	pool         string // made by somebody else
	dataDev      string
	metadataDev  string
	block        int64 // bytes
	minFree      int64 // percent
	discard      bool  // what a removed tree had is given back by the data file
	deferred     bool  // a tree that is still mounted is put away when it no longer is
	given        map[string]bool
}

func defaults() options {
	return options{
		baseSize: 10 << 30, loopData: 100 << 30, loopMetadata: 2 << 30, fs: "ext4",
		block: 64 << 10, minFree: 10, discard: true, deferred: true, given: map[string]bool{},
	}
}

// setters has a row for each option.
var setters = map[string]func(o *options, value string) error{
	"dm.basesize":         func(o *options, v string) (err error) { o.baseSize, err = size(v); return },
	"dm.loopdatasize":     func(o *options, v string) (err error) { o.loopData, err = size(v); return },
	"dm.loopmetadatasize": func(o *options, v string) (err error) { o.loopMetadata, err = size(v); return },
	"dm.fs":               func(o *options, v string) (err error) { o.fs, err = oneOf(v, "ext4", "xfs"); return },
	"dm.mkfsarg":          func(o *options, v string) error { o.mkfs = append(o.mkfs, v); return nil },
	"dm.mountopt":         (*options).setMount,
	"dm.thinpooldev":      func(o *options, v string) error { o.pool = strings.TrimPrefix(v, "/dev/mapper/"); return nil },
	"dm.datadev":          func(o *options, v string) error { o.dataDev = v; return nil },
	"dm.metadatadev":      func(o *options, v string) error { o.metadataDev = v; return nil },
	"dm.blocksize":        (*options).setBlock,
	"dm.min_free_space":   (*options).setMinFree,
	"dm.blkdiscard":       func(o *options, v string) (err error) { o.discard, err = yes(v); return },
	"dm.use_deferred_removal": func(o *options, v string) (err error) {
		o.deferred, err = yes(v)
		return
	},
	"dm.use_deferred_deletion": func(o *options, v string) error {
		on, err := yes(v)
		if err == nil && !on {
			err = fmt.Errorf("removals that find a tree mounted are always tried again later")
		}
		return err
	},
	// Whether udev and we wait for each other: nothing here waits for udev.
	"dm.override_udev_sync_check": func(_ *options, v string) error { _, err := yes(v); return err },
}

// parse reads KEY=VALUE options, with or without the driver's prefix; fault.Invalid for one that is unknown or wrong.
func parse(list []string) (options, error) {
	o := defaults()
	for _, text := range list {
		key, value, found := strings.Cut(text, "=")
		key = "dm." + strings.TrimPrefix(strings.ToLower(strings.TrimSpace(key)), "dm.")
		set := setters[key]
		switch {
		case set == nil:
			known := slices.Sorted(maps.Keys(setters))
			return o, fault.New(fault.Invalid, "devicemapper: unknown option %q: use %s", key, strings.Join(known, ", "))
		case !found || value == "":
			return o, fault.New(fault.Invalid, "devicemapper: option %s needs a value: %s=VALUE", key, key)
		}
		if err := set(&o, value); err != nil {
			return o, fault.New(fault.Invalid, "devicemapper: option %s: %w", text, err)
		}
		o.given[key] = true
	}
	return o, o.check()
}

// check refuses what does not go together.
func (o *options) check() error {
	if (o.dataDev == "") != (o.metadataDev == "") {
		return fault.New(fault.Invalid, "devicemapper: dm.datadev and dm.metadatadev belong together: give both")
	}
	if o.pool == "" {
		if o.dataDev != "" && !o.given["dm.blkdiscard"] {
			o.discard = false // as Docker's: real disks may be slow at it
		}
		return nil
	}
	if strings.Contains(o.pool, "/") {
		return fault.New(fault.Invalid, "devicemapper: option dm.thinpooldev=%s: a name below /dev/mapper is wanted", o.pool)
	}
	for _, key := range []string{"dm.datadev", "dm.loopdatasize", "dm.loopmetadatasize", "dm.blocksize"} {
		if o.given[key] {
			return fault.New(fault.Invalid, "devicemapper: %s is for a pool that is made here, dm.thinpooldev names one that is there: give one of them", key)
		}
	}
	if !o.given["dm.blkdiscard"] {
		o.discard = false
	}
	return nil
}

func (o *options) setBlock(v string) (err error) {
	// Between 64 KiB and 1 GiB in steps of 64 KiB (Documentation/admin-guide/device-mapper/thin-provisioning.rst).
	const step = 64 << 10
	o.block, err = size(v)
	if err == nil && (o.block < step || o.block > 1<<30 || o.block%step != 0) {
		err = fmt.Errorf("a multiple of 64K up to 1G is wanted")
	}
	return err
}

// notTheirs are options of mounts, which containers choose, and not of the file system that they share with nobody.
var notTheirs = []string{"atime", "noatime", "relatime", "norelatime", "strictatime", "diratime", "nodiratime", "dev", "nodev", "exec", "noexec", "suid", "nosuid", "ro", "rw"}

func (o *options) setMount(v string) error {
	for word := range strings.SplitSeq(v, ",") {
		switch word = strings.TrimSpace(word); {
		case slices.Contains(notTheirs, word):
			return fmt.Errorf("%s is not an option of a file system", word)
		case word != "" && word != "defaults":
			o.mount = append(o.mount, word)
		}
	}
	return nil
}

func (o *options) setMinFree(v string) (err error) {
	o.minFree, err = strconv.ParseInt(strings.TrimSuffix(v, "%"), 10, 64)
	if err != nil || o.minFree < 0 || o.minFree > 99 {
		err = fmt.Errorf("a percentage from 0%% to 99%% is wanted")
	}
	return err
}

func oneOf(v string, allowed ...string) (string, error) {
	if !slices.Contains(allowed, v) {
		return "", fmt.Errorf("use one of %s", strings.Join(allowed, ", "))
	}
	return v, nil
}

func yes(v string) (bool, error) {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("true or false is wanted")
	}
	return on, nil
}

// size reads a size such as 20G, 512m or 1.5TB, in powers of 1024.
func size(text string) (int64, error) {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(text)), "b"), "i")
	scale := 1.0
	if i := strings.IndexAny(number, "kmgtp"); i >= 0 && i == len(number)-1 {
		for range strings.IndexByte("kmgtp", number[i]) + 1 {
			scale *= 1024
		}
		number = strings.TrimSpace(number[:i])
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n > 0) || n*scale > math.MaxInt64/2 {
		return 0, fmt.Errorf("a size such as 20G is wanted")
	}
	return int64(n * scale), nil
}

// human writes a size as Docker's info does: powers of 1000, four digits.
func human(n int64) string {
	s := float64(n)
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for ; s >= 1000 && i < len(units)-1; i++ {
		s /= 1000
	}
	return fmt.Sprintf("%.4g%s", s, units[i])
}
