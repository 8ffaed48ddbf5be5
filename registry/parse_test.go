package registry

import (
	"testing"
	"time"
)

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:5000": true, "127.0.0.1": true, "127.8.9.1:5000": true, "[::1]:5000": true, "::1": true, "[::ffff:127.0.0.1]:80": true,
		"localhost.example.org": false, "example.org": false, "128.0.0.1": false, "127.example.org": false, "": false, "[::2]:80": false, "registry-1.docker.io": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("isLoopback(%q) = %v", host, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "0": 0, "7": 7 * time.Second, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", s, got, want)
		}
	}
}

func TestBegins(t *testing.T) {
	for s, want := range map[string]int64{"bytes 5-9/10": 5, "bytes 0-0/1": 0, "": -1, "bytes */10": -1, "items 5-9/10": -1, "bytes 5": -1} {
		if got := begins(s); got != want {
			t.Errorf("begins(%q) = %d, want %d", s, got, want)
		}
	}
}

// FuzzParseProblem: whatever a registry answers, an error has words.
func FuzzParseProblem(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"NAME_UNKNOWN","message":"m"}]}`), 404)
	f.Add([]byte(`{"details":"incorrect username or password"}`), 401)
	f.Add([]byte(`<html>`), 500)
	f.Fuzz(func(t *testing.T, data []byte, status int) {
		p := &problem{status: status}
		p.code, p.text = parseProblem(data)
		if p.Error() == "" {
			t.Error("no words")
		}
	})
}
