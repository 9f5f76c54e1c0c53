package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"podnet.dev/client/localapi"
)

// maxLog is the size in bytes at which a log file is set aside, under its name with
// .1 behind it. Two of them are some months of a laptop's days, and an afternoon of
// debugging.
const maxLog = 4 << 20

// LogFile is the daemon's log. It is set aside when it is large, also while it is
// being written.
type LogFile struct {
	path   string
	max    int64
	opened func(*os.File)

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenLog opens the log file, or makes it for our eyes only. opened is called with
// each file that is written from then on, until the next; it may be nil.
func OpenLog(path string, opened func(*os.File)) (*LogFile, error) {
	l := &LogFile{path: path, max: maxLog, opened: opened}
	if opened == nil {
		l.opened = func(*os.File) {}
	}
	return l, l.open()
}

func (l *LogFile) open() error {
	f, err := openAppend(l.path)
	if err != nil {
		return err
	}
	if l.file != nil {
		_ = l.file.Close() // it was appended to without a buffer
	}
	l.file, l.size = f, size(f)
	l.opened(f)
	return nil
}

// Write appends a whole line or several. What cannot be set aside is written on.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(p)) > l.max && os.Rename(l.path, l.path+".1") == nil {
		if err := l.open(); err != nil { // the folder is gone, or full of files
			l.size = 0
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// Close ends it; what is written later is lost.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// openAppend opens a log, and makes its folder. In one of somebody else's, in the
// temporary folder say, a link may stand where the log would be.
func openAppend(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if !localapi.OwnedBy(dir, os.Geteuid()) {
		return nil, fmt.Errorf("%s belongs to somebody else", dir)
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// size is what a file has.
func size(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}
