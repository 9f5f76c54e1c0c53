package pressure

import (
	"bufio"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
)

// The files that tell the container's memory, of cgroup 2 (cgroups(7)) as it is
// seen from inside. Where there are none, as with cgroup 1, only Go's own counts.
const (
	limitFile = "/sys/fs/cgroup/memory.max"
	statFile  = "/sys/fs/cgroup/memory.stat"
)

// share is the part of the container's limit that is the budget: the rest is for
// the collector's garbage and for what the kernel takes between two readings.
const share = 0.9

// Reader reads this process's memory.
type Reader struct {
	budget  uint64
	sockets bool // memory.stat tells them

	mu      sync.Mutex
	samples []metrics.Sample
}

// NewReader finds out the budget: nine tenths of the container's limit, or, where
// that is not to be seen, Go's own limit (GOMEMLIMIT).
func NewReader() *Reader { return newReader(limitFile, debug.SetMemoryLimit(-1)) }

func newReader(file string, goLimit int64) *Reader {
	r := &Reader{}
	for _, name := range []string{"/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes", "/memory/classes/metadata/mcache/inuse:bytes",
		"/memory/classes/metadata/mspan/inuse:bytes", "/memory/classes/metadata/other:bytes", "/memory/classes/os-stacks:bytes", "/memory/classes/other:bytes"} {
		r.samples = append(r.samples, metrics.Sample{Name: name})
	}
	if goLimit > 0 && goLimit < math.MaxInt64 {
		r.budget = uint64(goLimit)
	}
	if text, err := os.ReadFile(file); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63); err == nil {
			r.sockets = true
			if b := uint64(float64(n) * share); r.budget == 0 || b < r.budget {
				r.budget = b
			}
		}
	}
	return r
}

// Read reads.
func (r *Reader) Read() Reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	metrics.Read(r.samples)
	read := Reading{Budget: r.budget}
	for _, s := range r.samples {
		if s.Value.Kind() == metrics.KindUint64 {
			read.Used += s.Value.Uint64()
		}
	}
	if r.sockets {
		read.Outside = kernel(statFile)
		read.Used += read.Outside
	}
	return read
}

// kernel is what the kernel has for this container: socket buffers, and what they
// and everything else take of slabs, page tables and stacks.
func kernel(file string) (sum uint64) {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "sock", "slab_unreclaimable", "pagetables", "kernel_stack":
			if n, err := strconv.ParseUint(value, 10, 63); err == nil {
				sum += n
			}
		}
	}
	return sum
}
