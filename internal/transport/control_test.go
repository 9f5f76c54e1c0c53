package transport

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// Control messages are acted on while the device has no time for the data in
// front of them, and never shown to it.
func TestControlMessagesDoNotWaitForTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far, _ := testCarrier(t)
		var got [][]byte
		c.on['x'] = func(m []byte) { got = append(got, bytes.Clone(m)) }
		w := appendFrame(nil, message(100, 1))
		w = appendFrame(w, []byte("pxab"))
		w = appendFrame(w, []byte("pyab")) // nobody's
		w = appendFrame(w, []byte("pxcd"))
		far.Write(w)
		synctest.Wait()
		if len(got) != 2 || string(got[0]) != "pxab" || string(got[1]) != "pxcd" {
			t.Errorf("heard %q", got)
		}
	})
}

// A control message overtakes data, and does not wait when nothing moves.
func TestControlMessagesAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far, _ := testCarrier(t)
		c.send([][]byte{message(100, 1)}, nil)
		synctest.Wait() // being written
		c.send([][]byte{message(sendQueue-100, 2)}, nil)
		start := time.Now()
		for range 1000 { // more than is kept
			c.sendControl([]byte("pxab"))
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("control messages waited %v", d)
		}
		r := frameReader{src: far}
		var order []byte
		for controls := 0; len(order) < 2; {
			frames, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			for len(frames) > 0 {
				m, rest, _, _ := nextFrame(frames)
				frames = rest
				if m[0] != msgControl {
					order = append(order, m[len(m)-1])
					continue
				}
				if controls++; len(order) != 1 || controls > controlQueue/6 {
					t.Fatalf("control message %d after %d messages", controls, len(order))
				}
			}
		}
	})
}
