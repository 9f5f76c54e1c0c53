package resident

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// page is the size of what the kernel gives and takes.
var page = uintptr(os.Getpagesize())

// discard lets go of the whole pages in b, which is of Go's heap or mapped as private
// memory. To the runtime they stay what they were.
func discard(b []byte) {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	from := (start + page - 1) &^ (page - 1)
	to := (start + uintptr(len(b))) &^ (page - 1)
	if from < to {
		_ = unix.Madvise(b[from-start:to-start], unix.MADV_DONTNEED)
	}
}
