package tunnel

import (
	"runtime"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// The device's own queues hold 1024 batches of up to 128 packets, each packet in
// a buffer of 64 KiB, per peer and for all peers together. A TCP flow fills what
// it finds: hundreds of megabytes and tens of milliseconds. Nothing in the
// device's API shortens the queues, so a window bounds from outside what may be
// between the TUN and the Bind, in each direction. What waits then waits in
// front of the tunnel, where TCP and the kernel's queues know what to do.
const (
	// windowPerCPU is each window's size in bytes for each CPU: two batches of
	// 64 KiB, one being encrypted and one ready. On 2 CPUs, medians of 4
	// interleaved rounds of BenchmarkTunnel (internal/transport) on a busy
	// machine, without a window, with 512, 256 and 128 KiB in all:
	//
	//	              udp                         stream, MTU 16384
	//	MB/s          87, 121, 152, 140           132, 258, 315, 337
	//	RTT p50 ms    9.0, 11.6, 4.6, 4.5         88, 8.8, 5.3, 6.2
	//	heap MiB      286, 140, 121, 94           431, 237, 208, 90
	windowPerCPU = 128 << 10
	windowMax    = 2 << 20
	// A packet may end inside the device: no peer wants it, no session can
	// carry it, a stranger forged it. A window that has not moved for its
	// patience forgets what it counted. Forged packets may so cost a gateway a
	// pause of recvPatience per window, which is no lever.
	recvPatience = 5 * time.Millisecond
	// Of several peers one may be slow; it must not hold up the others.
	sendPatience = 20 * time.Millisecond
	// With a single peer, or none but prompt ones beside it, there are no others
	// to hold up, and a slow path is to be felt at the TUN. A stream gives up being slow after 2 s (transport).
	sendPatienceAlone = 3 * time.Second
)

// unit is what a window counts in, in bytes.
const unit = device.PaddingMultiple

func units(size int) int { return (size + unit - 1) / unit }

// padded is the size of a packet with WireGuard's padding, as the device computes
// it for a TUN of that MTU (never 0 here). A window must count the same when a
// packet sets out and when it arrives, or it drifts.
func padded(size, mtu int) int {
	last := size
	if last > mtu {
		last %= mtu
	}
	return size - last + min((last+unit-1)/unit*unit, mtu)
}

// A Send that takes longer than slowSend was held back by a stream: it is the
// wire that is slow, not this computer, and what waits in the device gains
// nothing. Then the window is narrow, one batch: at 5 Mbit/s that is 100 ms.
const (
	slowSend = 5 * time.Millisecond
	narrow   = 64 << 10
)

// window counts what is under way.
type window struct {
	limit int // units
	room  chan struct{}
	done  chan struct{} // closed: wait no more

	mu       sync.Mutex
	patience time.Duration
	sum      int
	slow     bool      // what is under way is held back
	moved    time.Time // when something last arrived, or began to be under way
}

func newWindow(patience time.Duration) *window {
	bytes := min(windowPerCPU*max(2, runtime.GOMAXPROCS(0)), windowMax)
	return &window{limit: bytes / unit, patience: patience, room: make(chan struct{}, 1), done: make(chan struct{})}
}

func (w *window) setPatience(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.patience = d
}

// wait blocks while the window is full and moves.
func (w *window) wait() {
	var timer *time.Timer
	for {
		w.mu.Lock()
		if w.roomLocked() {
			w.mu.Unlock()
			w.signal() // the next who waits, while this one reads
			return
		}
		left := w.patience - time.Since(w.moved)
		if left <= 0 {
			w.sum, w.moved = 0, time.Now()
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(left)
			defer timer.Stop()
		} else {
			timer.Reset(left)
		}
		select {
		case <-w.room:
		case <-timer.C:
		case <-w.done:
			return
		}
	}
}

// add counts n units that set out.
func (w *window) add(n int) {
	if n == 0 {
		return
	}
	w.mu.Lock()
	if w.sum == 0 {
		w.moved = time.Now()
	}
	w.sum += n
	w.mu.Unlock()
}

// remove counts n units that arrived.
func (w *window) remove(n int) {
	if n == 0 {
		return
	}
	w.mu.Lock()
	w.sum = max(0, w.sum-n)
	w.moved = time.Now()
	room := w.roomLocked()
	w.mu.Unlock()
	if room {
		w.signal()
	}
}

func (w *window) roomLocked() bool {
	// With several peers, one that is slow must not narrow the others' way.
	if w.slow && w.patience == sendPatienceAlone {
		return w.sum < narrow/unit
	}
	return w.sum < w.limit
}

// took notes how long something that arrives was held back.
func (w *window) took(d time.Duration) {
	w.mu.Lock()
	w.slow = d > slowSend
	w.mu.Unlock()
}

func (w *window) signal() {
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// dataUnits is what a WireGuard message counts: only data does, which comes
// from a TUN or goes to one. Handshakes and keepalives are never held back.
func dataUnits(m []byte) int {
	if len(m) <= device.MessageTransportSize || m[0] != device.MessageTransportType {
		return 0
	}
	return units(len(m) - device.MessageTransportSize)
}

// windowTUN is the TUN's end of both windows.
type windowTUN struct {
	tun.Device
	send, recv *window
	credits    *credits // instead of send, where the Device is a sorter; or nil
	closeOnce  sync.Once

	// The reader's: the MTU, which takes a system call to know, and since when.
	mtu   int
	mtuAt time.Time
}

func (t *windowTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if c := t.credits; c != nil {
		c.wait()
		n, err := t.Device.Read(bufs, sizes, offset)
		t.refreshMTU()
		c.read(bufs, sizes[:max(n, 0)], offset, t.mtu)
		return n, err
	}
	t.send.wait()
	n, err := t.Device.Read(bufs, sizes, offset)
	t.refreshMTU()
	sum := 0
	for _, s := range sizes[:max(n, 0)] {
		sum += units(padded(s, t.mtu))
	}
	t.send.add(sum)
	return n, err
}

func (t *windowTUN) refreshMTU() {
	if t.mtu != 0 && time.Since(t.mtuAt) < time.Second {
		return
	}
	mtu, err := t.MTU()
	if err != nil || mtu <= 0 {
		mtu = device.DefaultMTU
	}
	t.mtu, t.mtuAt = mtu, time.Now()
}

func (t *windowTUN) Write(bufs [][]byte, offset int) (int, error) {
	n, err := t.Device.Write(bufs, offset)
	sum := 0
	for _, b := range bufs {
		sum += units(len(b) - offset)
	}
	t.recv.remove(sum)
	clear(bufs) // which the device never reads again: see letGo
	return n, err
}

// Close closes the TUN once, however often the device does.
func (t *windowTUN) Close() (err error) {
	t.closeOnce.Do(func() {
		close(t.send.done)
		close(t.recv.done)
		if t.credits != nil {
			close(t.credits.done)
		}
		err = t.Device.Close()
	})
	return err
}

// windowBind is the Bind's end of both windows.
type windowBind struct {
	conn.Bind
	send, recv *window
	credits    *credits // as windowTUN's
}

func (b *windowBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := b.Bind.Open(port)
	for i, fn := range fns {
		fns[i] = func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			b.recv.wait()
			n, err := fn(bufs, sizes, eps)
			sum := 0
			for i := range max(n, 0) {
				sum += dataUnits(bufs[i][:sizes[i]])
			}
			b.recv.add(sum)
			return n, err
		}
	}
	return fns, actual, err
}

// Send is given the messages of one peer at a time.
func (b *windowBind) Send(bufs [][]byte, ep conn.Endpoint) error {
	sum, last := 0, []byte(nil)
	for _, m := range bufs {
		if n := dataUnits(m); n > 0 {
			sum, last = sum+n, m
		}
	}
	began := time.Now()
	err := b.Bind.Send(bufs, ep)
	switch {
	case sum == 0:
	case b.credits != nil:
		b.credits.remove(marked(last), sum)
	default:
		b.send.took(time.Since(began))
		b.send.remove(sum)
	}
	letGo(bufs)
	return err
}

// blank is what letGo leaves. Nobody reads or writes it.
var blank [device.MaxMessageSize]byte

// letGo drops a batch that was sent. The device keeps two slices of batches for each
// peer, one a way, and writes over what is in them only when the peer has as much
// again: 128 buffers of 64 KiB that no collection frees, whatever pools they are put
// back into. It adds up the lengths after a Send, so these stay.
func letGo(bufs [][]byte) {
	for i, b := range bufs {
		bufs[i] = blank[:len(b)]
	}
}
