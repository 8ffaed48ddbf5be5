package create

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// Environment joins the lines of files and the values of options; later ones come last.
// A name without a value takes it from lookup; from a file it is left out when lookup has none.
func Environment(files, values []string, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	for _, f := range files {
		lines, err := fileLines(f, lookup)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	for _, v := range values {
		key, _, ok := strings.Cut(v, "=")
		if value, known := lookup(key); !ok && known {
			v = key + "=" + value
		}
		all = append(all, v)
	}
	return all, nil
}

// labels is environment for labels: nothing is looked up.
func labels(files, values []string) (map[string]string, error) {
	var all []string
	for _, f := range files {
		lines, err := fileLines(f, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	return toMap(append(all, values...)), nil
}

// ValidEnv refuses an environment variable without a name.
func ValidEnv(v string) (string, error) {
	if v == "" || v[0] == '=' {
		return "", fmt.Errorf("invalid environment variable: %s", v)
	}
	return v, nil
}

func validLabel(v string) (string, error) {
	if v == "" || v[0] == '=' {
		return "", fmt.Errorf("invalid label '%s': empty name", v)
	}
	return v, nil
}

func fileLines(file string, lookup func(string) (string, bool)) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	lines, err := parseLines(text, lookup)
	if err != nil {
		return nil, fmt.Errorf("invalid env file (%s): %w", file, err)
	}
	return lines, nil
}

// parseLines reads KEY=VALUE lines. Blank lines and those that begin with # are skipped; a value is taken as it is, quotes and blanks included.
func parseLines(text []byte, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		if !utf8.Valid(sc.Bytes()) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %q", n, sc.Bytes())
		}
		line := strings.TrimLeft(sc.Text(), " \t\r\v\f")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if strings.ContainsAny(key, " \t\r\v\f") {
			if !ok {
				key = line
			}
			return nil, fmt.Errorf("variable '%s' contains whitespaces", key)
		}
		if key == "" {
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		}
		if !ok {
			if lookup == nil {
				continue // the field drops a label without a value when it stands in a file
			}
			value, known := lookup(key)
			if !known {
				continue
			}
			line = key + "=" + value
		}
		all = append(all, line)
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return nil, errors.New("a line is longer than 1 MiB")
	}
	return all, sc.Err()
}
