package forward_test

import (
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"
)

// TestIdleFlowsHaveOneGoroutine: of flows on which nothing goes either way, most of
// what a gateway has, only those wait that wait for the kernel.
func TestIdleFlowsHaveOneGoroutine(t *testing.T) {
	w := newWorld(t)
	at := listen(t, pod4, echo)
	const n = 50
	for range n {
		c := w.dial(t, at)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	text := make([]byte, 4<<20)
	running := func(what string) int {
		return bytes.Count(text[:runtime.Stack(text, true)], []byte("forward.(*Forwarder)."+what+"("))
	}
	for began := time.Now(); running("up") > 0 || running("down") != n; time.Sleep(50 * time.Millisecond) { // a sweep, 5 s
		if time.Since(began) > 15*time.Second {
			t.Fatalf("%d flows: %d wait for the target and %d for the laptop", n, running("down"), running("up"))
		}
	}
}
