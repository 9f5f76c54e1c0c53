package resident

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// letGo drops the pages of read-only mappings of files.
func letGo() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return // no /proc: nobody would see it either
	}
	defer f.Close()
	for _, m := range unwritten(f) {
		// Without a slice of Go's: this memory is not the runtime's.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is a part of the address space.
type mapping struct{ from, to uintptr }

// unwritten are the mappings of which every page can be read from its file again: they
// are private, of a file, not to be written, and have no page of their own, as those
// have that were written before (relocations; see proc_pid_smaps(5)).
func unwritten(smaps io.Reader) []mapping {
	var all []mapping
	var m mapping // the one whose lines are read; empty: not of a file, or to be written
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) < 2:
		case !strings.HasSuffix(f[0], ":"):
			m = ofFile(f)
		case f[0] == "Anonymous:" && f[1] == "0" && m != (mapping{}):
			all = append(all, m)
		}
	}
	return all
}

// ofFile is the mapping of a first line, if it is a private one of a file and not to
// be written: address range, permissions, offset, device, inode, name.
func ofFile(f []string) (m mapping) {
	if len(f) < 6 || f[4] == "0" || len(f[1]) != 4 || f[1][0] != 'r' || f[1][1] == 'w' || f[1][3] != 'p' {
		return m
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return m
	}
	b, err := strconv.ParseUint(to, 16, strconv.IntSize)
	if err != nil || b <= a {
		return m
	}
	return mapping{uintptr(a), uintptr(b)}
}
