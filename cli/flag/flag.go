// Package flag has the kinds of option values that a command line of containers needs,
// beside those of pflag.
//
// It is no parser of options and knows no command. Invariant: a value that is refused leaves the variable as it was.
package flag

import (
	"strings"

	"berth/cli/format"

	"github.com/spf13/pflag"
)

// Value is an option whose values are handed to Take, each as it comes. It implements pflag.Value.
type Value struct {
	Kind string // what help calls the value
	Take func(string) error
}

// Set takes one value.
func (v Value) Set(s string) error { return v.Take(s) }

// Type is what help calls the value.
func (v Value) Type() string { return v.Kind }

// String is the default: none.
func (v Value) String() string { return "" }

// List appends values as they are.
func List(to *[]string) Value {
	return Value{"list", func(v string) error { *to = append(*to, v); return nil }}
}

// Checked appends what check makes of each value.
func Checked(to *[]string, check func(string) (string, error)) Value {
	return Parsed("list", to, check)
}

// Parsed appends what parse makes of each value.
func Parsed[T any](kind string, to *[]T, parse func(string) (T, error)) Value {
	return Value{kind, func(v string) error {
		t, err := parse(v)
		if err == nil {
			*to = append(*to, t)
		}
		return err
	}}
}

// Pairs collects KEY=VALUE words in a map; check, unless nil, may refuse one.
func Pairs(to *map[string]string, check func(string) error) Value {
	return Value{"map", func(v string) error {
		if check != nil {
			if err := check(v); err != nil {
				return err
			}
		}
		key, value, _ := strings.Cut(v, "=")
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[key] = value
		return nil
	}}
}

// Size reads a number of bytes with a unit; minusOne allows -1.
func Size(to *int64, minusOne bool) Value {
	return Value{"bytes", func(v string) error {
		if minusOne && v == "-1" {
			*to = -1
			return nil
		}
		n, err := format.ParseSize(v)
		if err == nil {
			*to = n
		}
		return err
	}}
}

// Deprecated is the annotation of an option that Old has marked; its value is the advice.
const Deprecated = "berth-old"

// Old marks an option of fs that is accepted, hidden from help, and warned about with advice.
func Old(fs *pflag.FlagSet, name, advice string) {
	f := fs.Lookup(name)
	f.Hidden = true
	f.Annotations = map[string][]string{Deprecated: {advice}}
}

// Alias declares a second, hidden spelling of an option of fs.
func Alias(fs *pflag.FlagSet, name, alias string) {
	f := fs.Lookup(name)
	fs.AddFlag(&pflag.Flag{Name: alias, Usage: f.Usage, Value: f.Value, DefValue: f.DefValue, NoOptDefVal: f.NoOptDefVal, Hidden: true})
}
