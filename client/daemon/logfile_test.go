package daemon

import (
	"errors"
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

// TestLogInSomebodyElsesFolder: what a link there leads to is left alone, by the daemon
// and by whoever starts it.
func TestLogInSomebodyElsesFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be two users")
	}
	mine, theirs := filepath.Join(t.TempDir(), "profile"), t.TempDir()
	path := filepath.Join(theirs, "daemon.log")
	if err := errors.Join(os.WriteFile(mine, nil, 0o600), os.Symlink(mine, path), os.Chown(theirs, 64102, 64102)); err != nil {
		t.Fatal(err)
	}
	if l, err := OpenLog(path, nil); err == nil {
		fmt.Fprintln(l, "reboot")
		_ = l.Close()
	}
	l := openLog(path)
	fmt.Fprintln(l, "reboot")
	_ = l.Close()
	if raw, err := os.ReadFile(mine); err != nil || len(raw) > 0 {
		t.Errorf("the file has %q, %v", raw, err)
	}
}
