package create

import (
	"fmt"
	"strconv"
	"strings"
)

// parseNetClass reads a class of packets as tc(8) writes it, "10:1" with hexadecimal halves, or as one number, "0x100001".
func parseNetClass(v string) (uint32, error) {
	major, minor, ok := strings.Cut(v, ":")
	if !ok {
		n, err := strconv.ParseUint(v, 0, 32)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("invalid class %q: use MAJOR:MINOR in hexadecimal, such as 10:1, or a number such as 0x100001", v)
		}
		return uint32(n), nil
	}
	high, err := strconv.ParseUint(major, 16, 16)
	low, lowErr := strconv.ParseUint(minor, 16, 16)
	if err != nil || lowErr != nil || high|low == 0 {
		return 0, fmt.Errorf("invalid class %q: use MAJOR:MINOR in hexadecimal, such as 10:1, or a number such as 0x100001", v)
	}
	return uint32(high<<16 | low), nil
}
