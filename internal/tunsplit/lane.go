package tunsplit

import (
	"errors"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
)

const (
	// maxPacket is the largest that a device may have.
	maxPacket = 65535
	// headroom is in front of each packet in a lane; some devices need a bit.
	headroom = 16
)

// lane reads a device in a goroutine, one batch ahead.
type lane struct {
	dev  tun.Device
	call func() // called when there is a batch; nil: see ready
	// ready has an entry when there may be a batch, free when there is none.
	ready, free chan struct{}
	work        sync.WaitGroup

	mu    sync.Mutex
	bufs  [][]byte
	sizes []int
	full  bool // until all of the batch was taken
	at, n int
	err   error // after the batch
}

// newLane makes a lane for packets of at most size bytes.
func newLane(dev tun.Device, size int, call func()) *lane {
	l := &lane{dev: dev, call: call, ready: make(chan struct{}, 1), free: make(chan struct{}, 1)}
	if call == nil {
		l.call = func() { signal(l.ready) }
	}
	l.bufs, l.sizes = make([][]byte, dev.BatchSize()), make([]int, dev.BatchSize())
	room := make([]byte, len(l.bufs)*(headroom+size))
	for i := range l.bufs {
		l.bufs[i], room = room[:headroom+size:headroom+size], room[headroom+size:]
	}
	return l
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start begins to read, until the device ends.
func (l *lane) start(ended <-chan struct{}) {
	l.work.Go(func() {
		for {
			n, err := l.dev.Read(l.bufs, l.sizes, headroom)
			l.mu.Lock()
			l.full, l.at, l.n, l.err = true, 0, n, err
			l.mu.Unlock()
			l.call()
			if err != nil && !errors.Is(err, tun.ErrTooManySegments) {
				return
			}
			select {
			case <-l.free:
			case <-ended:
				return
			}
		}
	})
}

// take copies what there is, as far as bufs go. more says that there is more of
// the batch. The batch's error comes with the last of it, once.
func (l *lane) take(bufs [][]byte, sizes []int, offset int) (n int, more bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.full {
		return 0, false, nil
	}
	for ; l.at < l.n && n < len(bufs); l.at++ {
		size := l.sizes[l.at]
		if size <= 0 || offset+size > len(bufs[n]) {
			continue
		}
		sizes[n] = copy(bufs[n][offset:], l.bufs[l.at][headroom:headroom+size])
		n++
	}
	if l.at < l.n {
		return n, true, nil
	}
	l.full = false
	signal(l.free)
	return n, false, l.err
}
