// Package resident makes a process that has come to rest small: it gives the kernel
// back what is resident and not needed now.
package resident

import (
	"runtime"
	"runtime/debug"
)

// Shed collects garbage, twice, as what lies in pools outlives the first time. It returns
// the free memory of the Go runtime and what is Spare, and lets go of the pages of the
// program's own file. Starting touches most of a program with Kubernetes' libraries, for
// the first and the last time, and the kernel takes such pages back only when the node
// runs out of others. What is needed after all comes from the page cache, by a page fault
// of some microseconds for each 64 KiB.
//
// It takes some 30 ms of one core, more with a large heap. Where the program's pages
// can't be let go of, which is everywhere but on Linux, they stay.
func Shed() {
	runtime.GC()
	debug.FreeOSMemory()
	shedSpares()
	letGo()
}
