package session

import (
	"bufio"
	"fmt"
	"net/url"
	"strings"
	"time"

	"berth/cli/format"
	"berth/client"
)

// Moments sets since and until in the API's form.
func Moments(q url.Values, since, until string) error {
	now := time.Now()
	for key, text := range map[string]string{"since": since, "until": until} {
		if text == "" {
			continue
		}
		t, err := format.ParseTime(text, now)
		if err != nil {
			return fmt.Errorf("invalid value for --%s: %w", key, err)
		}
		q.Set(key, t)
	}
	return nil
}

// Confirm asks a question; only y and yes, in any case, mean yes.
func (s *Session) Confirm(question string) bool {
	fmt.Fprintf(s.Out, "%s [y/N] ", question)
	line, _ := bufio.NewReader(s.In).ReadString('\n') // what can't be read is no yes
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

// Filters sorts key=value filters by their keys.
func Filters(values []string) client.Filters {
	f := client.Filters{}
	for _, v := range values {
		if key, value, ok := strings.Cut(v, "="); ok {
			key = strings.ToLower(strings.TrimSpace(key))
			f[key] = append(f[key], strings.TrimSpace(value))
		}
	}
	return f
}
