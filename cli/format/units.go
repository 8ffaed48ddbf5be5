// Package format turns what the API answers into what people and scripts read:
// sizes, durations, tables and templates.
//
// It knows nothing of containers or images. Invariant: the same input gives
// the same bytes that users of the field's tools have always parsed.
package format

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration says in words how long something has lasted, in one unit, as "5 minutes" or "About an hour".
func Duration(d time.Duration) string {
	seconds, minutes, hours := int(d.Seconds()), int(d.Minutes()), int(math.Round(d.Hours()))
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 14*24:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 60*24:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 2*365*24:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", int(d.Hours())/24/365)
}

var (
	decimalUnits = []string{"B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	binaryUnits  = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}
)

func scale(n, base float64, units []string, digits int) string {
	i := 0
	for n >= base && i < len(units)-1 {
		n /= base
		i++
	}
	return fmt.Sprintf("%.*g%s", digits, n, units[i])
}

// Size gives a number of bytes in powers of 1000, with three digits, as "4.27MB".
func Size(bytes int64) string { return scale(float64(bytes), 1000, decimalUnits, 3) }

// FineSize is Size with four digits.
func FineSize(bytes int64) string { return scale(float64(bytes), 1000, decimalUnits, 4) }

// BinarySize gives a number of bytes in powers of 1024, with four digits, as "3.83GiB".
func BinarySize(bytes int64) string { return scale(float64(bytes), 1024, binaryUnits, 4) }

// ParseSize reads a size such as "64m", "1.5 GiB" or "4096": units are powers
// of 1024, in either case, with or without a trailing b or ib.
func ParseSize(s string) (int64, error) {
	end := strings.LastIndexAny(s, "0123456789. ")
	if end < 0 {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	number, unit := strings.TrimSuffix(s[:end+1], " "), strings.ToLower(s[end+1:])
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	if n < 0 || math.IsNaN(n) {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	if unit != "" && unit != "b" {
		power := strings.IndexByte("kmgtp", unit[0])
		if rest := unit[1:]; power < 0 || rest != "" && rest != "b" && rest != "ib" {
			return 0, fmt.Errorf("invalid suffix: '%s'", unit)
		}
		n *= math.Pow(1024, float64(power+1))
	}
	if n >= math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s' is more than 64 bits can count", s)
	}
	return int64(n), nil
}

// ParseTime reads a moment: an RFC 3339 date whose time and zone may be left
// out (then local), seconds since 1970 with a fraction, or a duration before now such as "10m".
// The result is in the API's form: seconds and nanoseconds since 1970.
func ParseTime(s string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(s); err == nil && strings.ContainsAny(s, "nuµmsh") {
		return stamp(now.Add(-d)), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return stamp(t), nil
		}
	}
	if sec, frac, _ := strings.Cut(s, "."); sec != "" && len(frac) <= 9 && digits(frac) && digits(strings.TrimPrefix(sec, "-")) {
		if n, err := strconv.ParseInt(sec, 10, 64); err == nil {
			return fmt.Sprintf("%d.%s%s", n, frac, strings.Repeat("0", 9-len(frac))), nil
		}
	}
	return "", errors.New("failed to parse value as time or duration: " + strconv.Quote(s))
}

func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func digits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// Count writes how many there are of what is named in the singular: "1 layer", "2 layers".
func Count(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.FormatInt(n, 10) + " " + what
}

// ShortID gives an ID without its algorithm, cut to twelve digits.
func ShortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	return id[:min(len(id), 12)]
}

// Ellipsis cuts s to width display columns, the last of them an ellipsis.
func Ellipsis(s string, width int) string {
	if width <= 0 {
		return ""
	}
	if Width(s) <= width {
		return s
	}
	if width == 1 {
		first := []rune(s)[0]
		return string(first)
	}
	used := 0
	for i, r := range s {
		if used += columns(r); used > width-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// columns is how wide a character is on a terminal: East Asian wide and full-width ones take two.
func columns(r rune) int {
	switch {
	case r < 0x1100:
		return 1
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff,
		r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
