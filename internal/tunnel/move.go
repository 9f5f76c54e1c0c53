package tunnel

import (
	"sync"
	"time"
)

// mover is a Bind whose gateways change paths. Transport's Bind is one.
type mover interface{ OnMove(func()) }

// showAfter is when a tunnel speaks after a move, so that the other end follows:
// WireGuard's responder sends to where the last authentic packet came from. It
// speaks several times, because a packet may be lost, and because one that was
// still on its way on the old path can turn the other end back to it. The last
// is later than any packet that is worth waiting for.
var showAfter = [...]time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}

// Shower speaks after moves.
type Shower struct {
	speak func()
	moved chan struct{} // capacity 1
	done  chan struct{}
	wait  sync.WaitGroup
}

// NewShower calls speak, from a goroutine of its own, after each Move: some times
// within a second. Close ends it.
func NewShower(speak func()) *Shower {
	s := &Shower{speak: speak, moved: make(chan struct{}, 1), done: make(chan struct{})}
	s.wait.Go(s.run)
	return s
}

// Move begins anew. It does not wait.
func (s *Shower) Move() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

func (s *Shower) run() {
	var start time.Time
	next := len(showAfter) // nothing is to be said
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Stop()
		if next < len(showAfter) {
			timer.Reset(time.Until(start.Add(showAfter[next])))
		}
		select {
		case <-s.moved:
			start, next = time.Now(), 0
		case <-timer.C:
			s.speak()
			next++
		case <-s.done:
			return
		}
	}
}

// Close waits until nobody speaks any more.
func (s *Shower) Close() {
	close(s.done)
	s.wait.Wait()
}
