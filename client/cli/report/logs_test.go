package report

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// heard is a writer that others read from.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// TestLogsFollowTheNextFile: half a line waits for its other half, and a log that is
// set aside is read to its end.
func TestLogsFollowTheNextFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	var out heard
	is := func(want string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); out.String() != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("got %q, want %q", out.String(), want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&logOptions{follow: true, tail: -1}).print(ctx, &out, path) }()
	write("one\ntwo")
	is("one\n")
	write(" and a half\n")
	is("one\ntwo and a half\n")
	write("three\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("four\n")
	is("one\ntwo and a half\nthree\nfour\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
