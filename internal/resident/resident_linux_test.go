package resident

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped is a file of some pages, mapped as a program's own is.
func mapped(t *testing.T, size, protection int) (content, mem []byte) {
	t.Helper()
	content = bytes.Repeat([]byte("0123456789abcdef"), size/16)
	name := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err = unix.Mmap(int(f.Fd()), 0, size, protection, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return content, mem
}

// ofFiles is how much is resident of files, in bytes.
func ofFiles(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// TestShed reads all of a large file, which is not resident afterwards and is still
// what it was.
func TestShed(t *testing.T) {
	const size = 32 << 20
	content, mem := mapped(t, size, unix.PROT_READ)
	if !bytes.Equal(mem, content) {
		t.Fatal("the file is not what was written")
	}
	before := ofFiles(t)
	Shed()
	after := ofFiles(t)
	t.Logf("resident of files: %d MiB, then %d MiB", before>>20, after>>20)
	if before < size || after > before-size {
		t.Errorf("resident of files: %d bytes, then %d", before, after)
	}
	if !bytes.Equal(mem, content) {
		t.Error("the file is not what it was")
	}
}

// TestWhatWasWrittenStays has a page that its file does not have, as a program has that
// the loader relocates.
func TestWhatWasWrittenStays(t *testing.T) {
	content, mem := mapped(t, 1<<20, unix.PROT_READ|unix.PROT_WRITE)
	copy(mem[5000:], "written")
	copy(content[5000:], "written")
	Shed() // while it can be written
	if !bytes.Equal(mem, content) {
		t.Fatal("what was written to a writable mapping is gone")
	}
	if err := unix.Mprotect(mem, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	Shed()
	if !bytes.Equal(mem, content) {
		t.Error("what was written before it became read-only is gone")
	}
}
