package transport

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// open opens b and collects what it receives.
func open(t *testing.T, b *Bind) (port uint16, got <-chan received) {
	t.Helper()
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan received, 1000)
	ended := make(chan struct{}, len(fns))
	for _, fn := range fns {
		go func() {
			defer func() { ended <- struct{}{} }()
			bufs, sizes, eps := make([][]byte, b.BatchSize()), make([]int, b.BatchSize()), make([]conn.Endpoint, b.BatchSize())
			for i := range bufs {
				bufs[i] = make([]byte, 65535)
			}
			for {
				n, err := fn(bufs, sizes, eps)
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("receive: %v", err)
					}
					return
				}
				for i := range n {
					ch <- received{bytes.Clone(bufs[i][:sizes[i]]), eps[i]}
				}
			}
		}()
	}
	t.Cleanup(func() {
		b.Close()
		for range fns {
			<-ended
		}
	})
	return port, ch
}

type received struct {
	m  []byte
	ep conn.Endpoint
}

func next(t *testing.T, got <-chan received) received {
	t.Helper()
	select {
	case r := <-got:
		return r
	case <-time.After(3 * time.Second):
		t.Fatal("nothing arrived")
		return received{}
	}
}
