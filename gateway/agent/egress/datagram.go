package egress

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"podnet.dev/internal/splice"
	"podnet.dev/internal/steer/control"
)

// relay carries datagrams between a gateway's connection and a socket until one of
// them fails. When that is because the target takes none, the connection ends in
// good order, which tells the gateway so, otherwise by a reset.
func relay(c net.Conn, socket *net.UDPConn) error {
	d := control.NewDatagrams(c)
	var refused atomic.Bool
	var sending sync.WaitGroup
	sending.Go(func() {
		send(d, socket, func() {
			refused.Store(true)
			_ = socket.SetReadDeadline(time.Unix(1, 0))
		})
		_ = socket.SetReadDeadline(time.Unix(1, 0)) // which ends receive
	})
	err := receive(socket, d)
	if refused.Load() || errors.Is(err, syscall.ECONNREFUSED) {
		// What the gateway has sent meanwhile must be read, or closing would be a
		// reset.
		_ = splice.CloseWrite(c)
		_ = c.SetReadDeadline(time.Now().Add(askTime))
	} else {
		splice.Reset(c)
	}
	sending.Wait()
	return err
}

var buffers = sync.Pool{New: func() any { return new([1 << 16]byte) }}

// send sends what a gateway says until it says no more. What the pod's network
// does not take is lost, as on any wire; that the target takes none it tells.
func send(d *control.Datagrams, socket *net.UDPConn, refused func()) {
	for {
		n, err := d.Next()
		if err != nil {
			return
		}
		b := buffers.Get().(*[1 << 16]byte)
		if err = d.Receive(b[:n]); err == nil {
			if _, lost := socket.Write(b[:n]); errors.Is(lost, syscall.ECONNREFUSED) {
				refused()
			}
		}
		buffers.Put(b)
		if err != nil {
			return
		}
	}
}

// receive passes on what comes from the target, until one of both fails.
func receive(socket *net.UDPConn, d *control.Datagrams) error {
	for {
		var told error
		if err := splice.ReadDatagram(socket, func(b []byte) { told = d.Send(b) }); err != nil {
			return err
		}
		if told != nil {
			return told
		}
	}
}
