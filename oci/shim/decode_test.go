package shim

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/fault"
	"berth/kernel/seccomp"
	"berth/oci"
)

// populate fills everything that v reaches, so that no field is forgotten.
func populate(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().String() != "*os.File" && depth < 12 {
			v.Set(reflect.New(v.Type().Elem()))
			populate(v.Elem(), depth+1)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(noon))
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() || f.Anonymous {
				populate(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		populate(v.Index(0), depth+1)
		populate(v.Index(1), depth+1)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		populate(e, depth+1)
		v.SetMapIndex(reflect.ValueOf("a \"key\" <ü>").Convert(v.Type().Key()), e)
	case reflect.String:
		v.SetString("text \u2028 \\ \" \x01 \t é 😀")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(-1.5e9)
	default:
		if v.CanInt() {
			v.SetInt(-77)
		} else if v.CanUint() {
			v.SetUint(200)
		}
	}
}

// TestDecodeIsTheInverse of what the JSON package writes, for all that a request can hold.
func TestDecodeIsTheInverse(t *testing.T) {
	var want call
	populate(reflect.ValueOf(&want).Elem(), 0)
	profile, err := seccomp.Default([]string{"CAP_CHOWN"})
	if err != nil {
		t.Fatal(err)
	}
	want.Start.Bundle.Spec.Linux.Seccomp = profile
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got, reference call
	if err := decode(data, &got); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	if err := json.Unmarshal(data, &reference); err != nil {
		t.Fatal(err)
	}
	same := cmp.Exporter(func(reflect.Type) bool { return true })
	if diff := cmp.Diff(reference, got, same); diff != "" {
		t.Error(diff)
	}
}

// TestEncodeIsTheJSONPackage's, but for how it escapes, for all that a supervisor writes.
func TestEncodeIsTheJSONPackages(t *testing.T) {
	for _, v := range []any{new(answer), new(run), new(oci.Exit)} {
		for _, filled := range []bool{false, true} {
			if filled {
				populate(reflect.ValueOf(v).Elem(), 0)
			}
			want, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			if err := errors.Join(json.Unmarshal(encode(v), &a), json.Unmarshal(want, &b)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, a); diff != "" {
				t.Errorf("%T: %s", v, diff)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, text := range []string{
		``, `{`, `{"n"`, `{"n":`, `{"n":1`, `{"n":1,}`, `{"n":1}x`, `{"n":-1}`, `{"n":"1"}`, `{"n":1.5}`, `{"op":1}`, `{"op":"a`, `{"op":"\x"}`, `{"op":"\u12"}`,
		"{\"op\":\"\n\"}", `{"start":[]}`, `{"start":{"attach":{}}}`, `{"start":{"bundle":{"spec":{"annotations":{"a":1}}}}}`,
		`{"attach":{"detachKeys":"=="}}`, `{"netns":tru}`, `{"netns":1}`, `{"unknown":}`, `{"unknown":x}`, `[]`, `nul`,
	} {
		if err := decode([]byte(text), new(call)); !errors.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", text, err)
		}
	}
	deep := make([]byte, 0, 4000)
	for range 1000 {
		deep = append(deep, `{"x":`...)
	}
	if err := decode(deep, new(call)); !errors.Is(err, fault.Corrupt) {
		t.Errorf("deep: %v", err)
	}
}

// FuzzDecode holds it against the JSON package: what that accepts as a request, this reads the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"n":1,"op":"start","start":{"bundle":{"id":"\ud83d\ude00\ud83d","spec":{"process":{"args":["a",null],"env":[]},"annotations":{"a":"b"}}},"terminal":true,"size":{"height":2}}}`))
	f.Add([]byte(`{"unknown":{"a":[1,2.5e3,"x",null,true]},"attach":{"detachKeys":"EBE="},"signal":-3}`))
	f.Add([]byte(` { "op" : "\u0041\n" , "start":null } `))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want, again call
		err := decode(data, &got)
		if json.Unmarshal(data, &want) != nil {
			return // it may be more lenient in what it skips
		}
		canonical, merr := json.Marshal(want)
		if merr != nil {
			t.Fatal(merr)
		}
		if err := decode(canonical, &again); err != nil {
			t.Fatalf("%s: %v", canonical, err)
		}
		if text, _ := json.Marshal(again); string(text) != string(canonical) {
			t.Errorf("%s became %s", canonical, text)
		}
		if err == nil && len(data) == len(canonical) && string(data) == string(canonical) {
			if text, _ := json.Marshal(got); string(text) != string(canonical) {
				t.Errorf("%s became %s", data, text)
			}
		}
	})
}
