package guest

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// archive writes a file system as the kernel takes it at boot: cpio's format "newc"
// (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	to      io.Writer
	at      int64
	folders map[string]bool
	err     error
}

// Kinds of files, and the permissions that all of them have.
const (
	kindFile   = 0o100000
	kindFolder = 0o040000
	kindDevice = 0o020000
	executable = 0o755
)

// entry writes one file's header, and its content if there is any.
func (a *archive) entry(name string, mode uint32, size int64, major, minor uint32, content io.Reader) {
	name = strings.TrimPrefix(name, "/")
	a.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	a.pad()
	if content == nil || a.err != nil {
		return
	}
	n, err := io.CopyN(a.to, content, size)
	a.at += n
	if a.err = err; err != nil {
		a.err = fmt.Errorf("%s: %w", name, err)
	}
	a.pad()
}

func (a *archive) printf(format string, args ...any) {
	if a.err == nil {
		var n int
		n, a.err = fmt.Fprintf(a.to, format, args...)
		a.at += int64(n)
	}
}

// pad fills up to a multiple of 4 bytes.
func (a *archive) pad() {
	a.printf("%s", "\x00\x00\x00"[:(4-a.at%4)%4])
}

// folder writes a folder and those around it, once.
func (a *archive) folder(name string) {
	if name == "/" || name == "." || a.folders[name] {
		return
	}
	a.folder(path.Dir(name))
	if a.folders == nil {
		a.folders = map[string]bool{}
	}
	a.folders[name] = true
	a.entry(name, kindFolder|executable, 0, 0, 0, nil)
}

// file writes a copy of a file.
func (a *archive) file(name, from string) {
	if a.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.folder(path.Dir(name))
	a.entry(name, kindFile|executable, info.Size(), 0, 0, f)
}

// console is what the first process has for its output.
func (a *archive) console() {
	a.folder("/dev")
	a.entry("/dev/console", kindDevice|0o600, 0, 5, 1, nil)
}

func (a *archive) end() { a.entry("TRAILER!!!", 0, 0, 0, 0, nil) }
