package forward

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"strings"
	"time"
)

// maxPad bounds how many spaces pad puts on a side: a tag comes from who creates a container.
const maxPad = 4096

// tagFuncs are the functions of tags with how many arguments each takes, -1 being any number: text/template's own, and those that tools use in tags.
var tagFuncs = map[string]int{
	"and": -1, "or": -1, "not": 1, "len": 1, "index": -1, "print": -1, "printf": -1, "println": -1, "html": -1, "urlquery": -1,
	"eq": -1, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2,
	"json": 1, "split": 2, "join": 2, "lower": 1, "upper": 1, "title": 1, "pad": 3, "truncate": 2,
}

// callTagFunc is what a function gives.
func callTagFunc(name string, args []any) (any, error) {
	if n := tagFuncs[name]; n >= 0 && len(args) != n {
		return nil, fmt.Errorf("wrong number of args for %s: want %d got %d", name, n, len(args))
	}
	switch name {
	case "print":
		return fmt.Sprint(args...), nil
	case "println":
		return fmt.Sprintln(args...), nil
	case "html":
		return html.EscapeString(fmt.Sprint(args...)), nil
	case "urlquery":
		return url.QueryEscape(fmt.Sprint(args...)), nil
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("%s needs a value", name)
	}
	switch name {
	case "not":
		return !truth(args[0]), nil
	case "len":
		return length(args[0])
	case "index":
		return index(args[0], args[1:])
	case "eq", "ne", "lt", "le", "gt", "ge":
		return compared(name, args)
	case "json":
		data, err := json.Marshal(args[0])
		return string(data), err
	case "join":
		list, ok := args[0].([]string)
		if sep, isText := args[1].(string); ok && isText {
			return strings.Join(list, sep), nil
		}
		return nil, errors.New("join needs a list and a text")
	}
	return textFunc(name, args)
}

// textFunc is a function of a text.
func textFunc(name string, args []any) (any, error) {
	s, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("%s needs a text, not %v", name, args[0])
	}
	var numbers []int
	for _, arg := range args[1:] {
		if n, ok := arg.(int); ok {
			numbers = append(numbers, n)
		}
	}
	switch {
	case name == "printf":
		return fmt.Sprintf(s, args[1:]...), nil
	case name == "lower":
		return strings.ToLower(s), nil
	case name == "upper":
		return strings.ToUpper(s), nil
	case name == "title":
		return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):], nil
	case name == "truncate" && len(numbers) == 1:
		return s[:max(0, min(numbers[0], len(s)))], nil
	case name == "pad" && len(numbers) == 2 && max(numbers[0], numbers[1]) <= maxPad:
		if s == "" {
			return s, nil
		}
		return strings.Repeat(" ", max(0, numbers[0])) + s + strings.Repeat(" ", max(0, numbers[1])), nil
	case name == "split":
		if sep, ok := args[1].(string); ok {
			return strings.Split(s, sep), nil
		}
	}
	return nil, fmt.Errorf("%s can't take %v", name, args[1:])
}

// truth is whether a value is other than the zero of its type.
func truth(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []string:
		return len(v) > 0
	case map[string]string:
		return len(v) > 0
	}
	return true
}

func length(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return len(v), nil
	case []string:
		return len(v), nil
	case map[string]string:
		return len(v), nil
	}
	return nil, fmt.Errorf("%v has no length", v)
}

// index is an element of a list or a map, or a byte of a text; of a map that lacks it "".
func index(v any, keys []any) (any, error) {
	for _, key := range keys {
		switch of := v.(type) {
		case map[string]string:
			name, ok := key.(string)
			if !ok {
				return nil, fmt.Errorf("can't index a map by %v", key)
			}
			v = of[name]
		case []string:
			n, ok := key.(int)
			if !ok || n < 0 || n >= len(of) {
				return nil, fmt.Errorf("index out of range: %v", key)
			}
			v = of[n]
		case string:
			n, ok := key.(int)
			if !ok || n < 0 || n >= len(of) {
				return nil, fmt.Errorf("index out of range: %v", key)
			}
			v = int(of[n])
		default:
			return nil, fmt.Errorf("can't index %v", v)
		}
	}
	return v, nil
}

// compared is whether the first value is the second's equal, or less and so on; for eq one of several.
func compared(name string, args []any) (any, error) {
	if len(args) < 2 {
		return nil, fmt.Errorf("%s needs something to compare with", name)
	}
	for _, other := range args[1:] { // a missing element of a map is nil
		if args[0] == nil || other == nil {
			if name != "eq" && name != "ne" {
				return nil, fmt.Errorf("%s can't compare with nothing", name)
			}
			if (args[0] == nil && other == nil) == (name == "eq") {
				return true, nil
			}
			continue
		}
		order, err := compare(args[0], other)
		if err != nil {
			return nil, err
		}
		switch {
		case order == 0 && (name == "eq" || name == "le" || name == "ge"),
			order != 0 && name == "ne",
			order < 0 && (name == "lt" || name == "le"),
			order > 0 && (name == "gt" || name == "ge"):
			return true, nil
		}
	}
	return false, nil
}

func compare(a, b any) (int, error) {
	switch a := a.(type) {
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b), nil
		}
	case int:
		if b, ok := b.(int); ok {
			return cmp.Compare(a, b), nil
		}
	case float64:
		if b, ok := b.(float64); ok {
			return cmp.Compare(a, b), nil
		}
	case bool:
		if b, ok := b.(bool); ok && a == b {
			return 0, nil
		} else if ok {
			return 1, nil
		}
	case time.Time:
		if b, ok := b.(time.Time); ok {
			return a.Compare(b), nil
		}
	}
	return 0, fmt.Errorf("can't compare %v with %v", a, b)
}
