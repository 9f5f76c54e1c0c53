package resident

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// residentPages counts the pages of b, a mapping, that are there.
func residentPages(t *testing.T, b []byte) (n int) {
	t.Helper()
	vec := make([]byte, (len(b)+int(page)-1)/int(page))
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&vec[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// TestSpare sheds memory that is lent, and none that is not or is beside it.
func TestSpare(t *testing.T) {
	const pages = 16
	mem, err := unix.Mmap(-1, 0, pages*int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for i := range mem {
		mem[i] = 1
	}
	s := NewSpare()
	inner := mem[1 : 8*page+1] // seven whole pages
	outer := mem[9*page:]
	Shed()
	if n := residentPages(t, mem); n != pages {
		t.Fatalf("%d of %d pages are there, and nothing was lent", n, pages)
	}
	s.Lend([][]byte{inner, outer, nil, mem[:5]})
	Shed()
	if n := residentPages(t, mem); n != 2 {
		t.Errorf("%d pages are there with what is lent let go, want 2", n)
	}
	if !bytes.Equal(mem[:page], bytes.Repeat([]byte{1}, int(page))) || mem[8*page] != 1 {
		t.Error("what was not lent has changed")
	}
	s.Take()
	for i := range inner {
		inner[i] = 2
	}
	Shed()
	if n := residentPages(t, mem); n != 9 || inner[0] != 2 || inner[len(inner)-1] != 2 {
		t.Errorf("%d pages are there after Take, want 9, and %d..%d in them", n, inner[0], inner[len(inner)-1])
	}
	runtime.KeepAlive(s)
}

// TestSparesGo: what nobody uses any more is not kept.
func TestSparesGo(t *testing.T) {
	func() { NewSpare().Lend([][]byte{make([]byte, 1<<16)}) }()
	kept := NewSpare()
	for begin := time.Now(); ; runtime.GC() {
		if all := presentSpares(); len(all) == 1 && all[0] == kept {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d spares are there, want 1", len(presentSpares()))
		}
	}
	runtime.KeepAlive(kept)
}

// TestShedBesideReaders has owners write and read their buffers of Go's heap while they
// are shed again and again: what is written between Take and Lend stays.
func TestShedBesideReaders(t *testing.T) {
	var owners sync.WaitGroup
	for owner := range 4 {
		s, bufs := NewSpare(), make([][]byte, 8)
		for i := range bufs {
			bufs[i] = make([]byte, 1<<16-1)
		}
		owners.Go(func() {
			for round := range 300 {
				s.Lend(bufs)
				runtime.Gosched()
				s.Take()
				v := byte(owner + round)
				for _, b := range bufs {
					b[0], b[len(b)/2], b[len(b)-1] = v, v, v
				}
				runtime.Gosched()
				for i, b := range bufs {
					if b[0] != v || b[len(b)/2] != v || b[len(b)-1] != v {
						t.Errorf("owner %d, round %d: buffer %d has lost what was written", owner, round, i)
						return
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { owners.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		default:
			shedSpares()
		}
	}
}
