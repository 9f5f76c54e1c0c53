package agent

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// datagrams have those sizes, and each its own content.
func datagrams(sizes ...int) (all [][]byte) {
	for i, size := range sizes {
		all = append(all, bytes.Repeat([]byte{byte(i + 1)}, size))
	}
	return all
}

func same(n, size int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

func TestTrain(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		want  int
	}{
		{[]int{100}, 1},
		{[]int{100, 100, 100}, 3},
		{[]int{100, 100, 40, 100}, 3}, // the last may be short,
		{[]int{100, 101}, 1},          // but not long
		{same(100, 10), trainDatagrams},
		{same(60, 1312), trainBytes / 1312},
		{[]int{60000, 60000}, 1},
	} {
		if n := train(datagrams(c.sizes...)); n != c.want {
			t.Errorf("%d of %v go at once, want %d", n, c.sizes, c.want)
		}
	}
}

// carry sends datagrams from one bind to another and wants them to arrive.
func carry(t *testing.T, from *bind, to conn.Endpoint, receive conn.ReceiveFunc, all [][]byte) {
	t.Helper()
	if err := from.Send(all, to); err != nil {
		t.Fatal(err)
	}
	bufs, sizes, eps := make([][]byte, batch), make([]int, batch), make([]conn.Endpoint, batch)
	for i := range bufs {
		bufs[i] = make([]byte, maxDatagram)
	}
	for at := 0; at < len(all); {
		n, err := receive(bufs, sizes, eps)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", at, len(all), err)
		}
		for i := range n {
			if got := bufs[i][:sizes[i]]; !bytes.Equal(got, all[at]) {
				t.Fatalf("datagram %d came as %d bytes of %d, sent were %d", at, len(got), got[0], len(all[at]))
			}
			at++
		}
	}
}

// twoBinds are open, and the second is where the endpoint leads.
func twoBinds(t *testing.T) (from, to *bind, at conn.Endpoint, receive conn.ReceiveFunc) {
	t.Helper()
	from, to = &bind{}, &bind{}
	if _, _, err := from.Open(0); err != nil {
		t.Fatal(err)
	}
	fns, port, err := to.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	_ = to.socket.SetReadDeadline(time.Now().Add(10 * time.Second))
	if at, err = to.ParseEndpoint(fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Fatal(err)
	}
	return from, to, at, fns[0]
}

// TestTrainsArriveAsDatagrams: in order and of the size that they were sent in.
func TestTrainsArriveAsDatagrams(t *testing.T) {
	from, _, at, receive := twoBinds(t)
	if !from.trains.Load() {
		t.Log("this kernel does not cut up trains")
	}
	for _, all := range [][][]byte{
		datagrams(148), datagrams(same(10, 1312)...), datagrams(1312, 1312, 80, 1312, 92, 92, 1200), datagrams(same(70, 200)...),
	} {
		carry(t, from, at, receive, all)
	}
}

// TestTrainsThatDoNotFit: where datagrams exceed the way's MTU the kernel does not
// cut up. They arrive all the same, in fragments.
func TestTrainsThatDoNotFit(t *testing.T) {
	inPod(t, func(t *testing.T) {
		if out, err := exec.Command("ip", "link", "set", "lo", "mtu", "1000").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		from, _, at, receive := twoBinds(t)
		carry(t, from, at, receive, datagrams(same(10, 1312)...))
		if from.trains.Load() {
			t.Error("the next train would be tried in vain")
		}
	})
}
