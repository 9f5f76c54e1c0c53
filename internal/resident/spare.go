package resident

import (
	"slices"
	"sync"
	"weak"
)

// Spare is memory whose content does not matter while its owner waits: the buffers that
// the next packets will be read into. They are of 64 KiB each, by the hundred, and never
// given up; the runtime clears all of one whenever it hands it out anew, which makes all
// of it resident though a packet takes a page. Shed lets go of what is lent at the time:
// it reads as zeros from then on, and costs a page fault where it is used again.
type Spare struct {
	mu   sync.Mutex
	lent [][]byte
}

// spares are those of the process, of which some may be gone.
var spares struct {
	sync.Mutex
	all []weak.Pointer[Spare]
}

// NewSpare makes one that Shed heeds for as long as it is used.
func NewSpare() *Spare {
	s := &Spare{}
	spares.Lock()
	defer spares.Unlock()
	spares.all = append(spares.all, weak.Make(s))
	return s
}

// Lend says that nobody reads or writes what is in blocks until Take.
func (s *Spare) Lend(blocks [][]byte) {
	s.mu.Lock()
	s.lent = blocks
	s.mu.Unlock()
}

// Take ends a Lend: the blocks are their owner's again, with any content.
func (s *Spare) Take() {
	s.mu.Lock()
	s.lent = nil
	s.mu.Unlock()
}

// shed lets go of what is lent.
func (s *Spare) shed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.lent {
		discard(b)
	}
}

// shedSpares does it for all of the process.
func shedSpares() {
	for _, s := range presentSpares() {
		s.shed()
	}
}

// presentSpares are the spares that are there, and forgets the others.
func presentSpares() (all []*Spare) {
	spares.Lock()
	defer spares.Unlock()
	spares.all = slices.DeleteFunc(spares.all, func(w weak.Pointer[Spare]) bool {
		s := w.Value()
		if s != nil {
			all = append(all, s)
		}
		return s == nil
	})
	return all
}
