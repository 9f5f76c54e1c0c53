package kernel

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.zx2c4.com/wireguard/conn"
)

// WireGuard's message of the first kind begins a handshake (its paper, 5.4.2). The
// Bind keeps the last one, to send it again by another path, and knows it by being
// alone.
const (
	msgInitiation  = 1
	initiationSize = 148
)

// maxDatagram is what UDP carries in IPv4, rounded up.
const maxDatagram = 1 << 16

// receiveTries is how often in a row a Bind may fail to receive, and receivePause how
// long it is left alone after each, as in wireguard-go's device.
const (
	receiveTries = 10
	receivePause = time.Second / 3
)

// wire carries datagrams between the kernel's device, which is at the other end of a
// socket on loopback, and a Bind:
//
//	device ----> socket ----> up ------> Bind.Send
//	device <---- socket <---- down <---- each of the Bind's receive functions
//
// It holds nothing: what the device sends faster than the Bind takes waits in the
// socket, and is lost when that is full, as on any wire.
type wire struct {
	socket *net.UDPConn
	many   *ipv4.PacketConn // the same
	bind   conn.Bind
	broken func(error)
	log    *slog.Logger

	to      atomic.Pointer[conn.Endpoint] // nil: nobody
	sending sync.WaitGroup                // up

	mu        sync.Mutex
	ended     bool
	receiving sync.WaitGroup // each down of the present open
}

// newWire owns socket. broken is told, perhaps several times, when it carries no
// more.
func newWire(socket *net.UDPConn, bind conn.Bind, broken func(error), log *slog.Logger) *wire {
	w := &wire{socket: socket, many: ipv4.NewPacketConn(socket), bind: bind, broken: broken, log: log}
	w.sending.Go(w.up)
	return w
}

// aim says where what the device sends is to go; nil: nowhere.
func (w *wire) aim(to conn.Endpoint) {
	if to == nil {
		w.to.Store(nil)
		return
	}
	w.to.Store(&to)
}

// open opens the Bind on a free port, which it returns.
func (w *wire) open() (uint16, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return 0, net.ErrClosed
	}
	fns, port, err := w.bind.Open(0)
	if err != nil {
		return 0, err
	}
	for _, fn := range fns {
		w.receiving.Go(func() { w.down(fn) })
	}
	return port, nil
}

// close closes the Bind and waits until nothing comes from it.
func (w *wire) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closeLocked()
}

func (w *wire) closeLocked() error {
	err := w.bind.Close()
	w.receiving.Wait()
	return err
}

// end closes both ends.
func (w *wire) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	err := errors.Join(w.closeLocked(), w.socket.Close())
	w.sending.Wait()
	return err
}

// batch is memory for as many datagrams as go at once.
func (w *wire) batch() ([][]byte, []ipv4.Message) {
	bufs, msgs := make([][]byte, w.bind.BatchSize()), make([]ipv4.Message, w.bind.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, maxDatagram)
		msgs[i].Buffers = [][]byte{bufs[i]}
	}
	return bufs, msgs
}

// up takes what the device sends to the Bind.
func (w *wire) up() {
	bufs, msgs := w.batch()
	out := make([][]byte, 0, len(bufs))
	for {
		n, err := w.many.ReadBatch(msgs, 0)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED): // of something that we sent: it is down for now
			continue
		case err != nil:
			if !errors.Is(err, net.ErrClosed) {
				w.broken(err)
			}
			return
		}
		to := w.to.Load()
		if to == nil {
			continue
		}
		out = out[:0]
		for i := range n {
			out = append(out, bufs[i][:msgs[i].N])
		}
		w.send(out, *to)
	}
}

func (w *wire) send(bufs [][]byte, to conn.Endpoint) {
	for len(bufs) > 0 {
		n := slices.IndexFunc(bufs, isInitiation)
		switch n {
		case -1:
			n = len(bufs)
		case 0:
			n = 1
		}
		if err := w.bind.Send(bufs[:n], to); err != nil && !errors.Is(err, net.ErrClosed) {
			w.log.Debug("datagrams of the kernel's device are lost", "err", err)
		}
		bufs = bufs[n:]
	}
}

func isInitiation(m []byte) bool { return len(m) == initiationSize && m[0] == msgInitiation }

// down takes what the Bind receives to the device, until the Bind closes.
func (w *wire) down(fn conn.ReceiveFunc) {
	bufs, msgs := w.batch()
	sizes, from := make([]int, len(bufs)), make([]conn.Endpoint, len(bufs))
	for failed := 0; ; {
		n, err := fn(bufs, sizes, from)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if failed++; failed == receiveTries {
				w.broken(err)
				return
			}
			time.Sleep(receivePause)
			continue
		}
		failed = 0
		k := 0
		for i := range n {
			if sizes[i] > 0 {
				msgs[k].Buffers[0] = bufs[i][:sizes[i]]
				k++
			}
		}
		w.deliver(msgs[:k])
	}
}

// deliver gives datagrams to the device. What it does not take is lost.
func (w *wire) deliver(msgs []ipv4.Message) {
	for len(msgs) > 0 {
		n, err := w.many.WriteBatch(msgs, 0)
		if err != nil || n <= 0 {
			n = 1
		}
		msgs = msgs[n:]
	}
}
