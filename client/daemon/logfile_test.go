package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestLogIsSetAsideWhileItIsWritten: no line is lost or cut, however many write.
func TestLogIsSetAsideWhileItIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "daemon.log")
	var opened []string
	l, err := OpenLog(path, func(f *os.File) { opened = append(opened, f.Name()) })
	if err != nil {
		t.Fatal(err)
	}
	l.max = 1000
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if _, err := fmt.Fprintf(l, "writer %d line %02d ends here\n", w, i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	var all string
	for _, name := range []string{path + ".1", path} {
		raw, err := os.ReadFile(name)
		if err != nil || len(raw) == 0 || len(raw) > 1000 {
			t.Errorf("%s: %d bytes, %v", name, len(raw), err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		all += string(raw)
	}
	if n := strings.Count(all, " ends here\n"); n != 40 || len(opened) != 2 {
		t.Errorf("%d lines of 40, opened %v", n, opened)
	}
	// The next daemon goes on where this one ended.
	again, err := OpenLog(path, nil)
	if err != nil || again.size == 0 {
		t.Errorf("size %d, %v", again.size, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
