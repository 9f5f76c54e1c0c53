package transport_test

import (
	"sync/atomic"
	"testing"
	"time"

	"podnet.dev/internal/transport"
)

// The first handshake of a session loses a message. WireGuard would wait for 5 s.
func TestLostHandshakeIsRepeated(t *testing.T) {
	const initiation, response = 148, 92
	for name, c := range map[string]struct {
		toServer bool
		size     int
		times    int32
	}{
		"initiation":      {true, initiation, 1},
		"two initiations": {true, initiation, 2},
		"response":        {false, response, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			laptop, gw := newNode(t, 1280, transport.Options{}), newNode(t, 1280, transport.Options{})
			nat := newNAT(t, gw.udpAddr())
			var lost atomic.Int32
			nat.lose(func(toServer bool, size int) bool {
				return toServer == c.toServer && size == c.size && lost.Add(1) <= c.times
			})
			g := laptop.gateway(t, gw, nil, nat.addr())
			wantKind(t, g, transport.UDP, 10*time.Second)
			gw.echo()
			start := time.Now()
			newFlow(laptop, gw.addr, 100).mustExchange(t, 0, 1)
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("the first answer took %v", d)
			} else {
				t.Logf("the first answer took %v", d)
			}
			if lost.Load() < c.times {
				t.Errorf("%d messages were lost, want %d", lost.Load(), c.times)
			}
		})
	}
}
