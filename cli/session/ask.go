package session

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"berth/cli/format"
	"berth/cli/terminal"
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
	line, _ := s.line() // what can't be read is no yes
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

// Ask asks for one line of text.
func (s *Session) Ask(question string) (string, error) {
	fmt.Fprint(s.Out, question)
	line, err := s.line()
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// line reads to the end of a line and not one byte further: what follows is another question's answer.
func (s *Session) line() (string, error) {
	var text []byte
	for b := make([]byte, 1); ; {
		n, err := s.In.Read(b)
		if n == 1 && b[0] == '\n' {
			return string(text), nil
		}
		text = append(text, b[:n]...)
		if err != nil {
			return string(text), err
		}
	}
}

// AskSecret asks for one line on the terminal, which doesn't show it.
func (s *Session) AskSecret(question string) (string, error) {
	fmt.Fprint(s.Out, question)
	text, err := terminal.ReadSecret(s.In)
	fmt.Fprintln(s.Out)
	return text, err
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
