package build

import (
	"strconv"
	"strings"

	"berth/fault"
)

// change reads the mode of --chmod, octal or symbolic as chmod(1) has it, and gives what it makes of a mode; nil for "".
func change(mode string) func(old int64, dir bool) (int64, error) {
	if mode == "" {
		return nil
	}
	if n, err := strconv.ParseInt(mode, 8, 64); err == nil {
		return func(int64, bool) (int64, error) { return n, nil }
	}
	return func(old int64, dir bool) (int64, error) {
		for _, clause := range strings.Split(mode, ",") {
			var err error
			if old, err = changeBy(clause, old, dir); err != nil {
				return 0, fault.New(fault.Invalid, "invalid chmod parameter %q: %w", mode, err)
			}
		}
		return old, nil
	}
}

// changeBy applies one clause, such as go-w or u=rwX.
func changeBy(clause string, mode int64, dir bool) (int64, error) {
	k := strings.IndexAny(clause, "+-=")
	if k < 0 {
		return 0, fault.New(fault.Invalid, "%q has none of + - =", clause)
	}
	var who int64
	for _, c := range clause[:k] {
		switch c {
		case 'u':
			who |= 0o4700
		case 'g':
			who |= 0o2070
		case 'o':
			who |= 0o1007
		case 'a':
			who |= 0o7777
		default:
			return 0, fault.New(fault.Invalid, "%q is none of u g o a", c)
		}
	}
	if who == 0 {
		who = 0o7777
	}
	for rest := clause[k:]; rest != ""; {
		op := rest[0]
		end := strings.IndexAny(rest[1:], "+-=") + 1
		if end == 0 {
			end = len(rest)
		}
		bits, err := permissions(rest[1:end], mode, dir)
		if err != nil {
			return 0, err
		}
		switch bits &= who; op {
		case '+':
			mode |= bits
		case '-':
			mode &^= bits
		case '=':
			mode = mode&^(who&0o777) | bits
		}
		rest = rest[end:]
	}
	return mode, nil
}

// permissions are the bits that letters stand for, for everybody.
func permissions(letters string, mode int64, dir bool) (bits int64, err error) {
	for _, c := range letters {
		switch c {
		case 'r':
			bits |= 0o444
		case 'w':
			bits |= 0o222
		case 'x':
			bits |= 0o111
		case 'X':
			if dir || mode&0o111 != 0 {
				bits |= 0o111
			}
		case 's':
			bits |= 0o6000
		case 't':
			bits |= 0o1000
		case 'u':
			bits |= mode >> 6 & 7 * 0o111
		case 'g':
			bits |= mode >> 3 & 7 * 0o111
		case 'o':
			bits |= mode & 7 * 0o111
		default:
			return 0, fault.New(fault.Invalid, "%q is none of r w x X s t u g o", c)
		}
	}
	return bits, nil
}
