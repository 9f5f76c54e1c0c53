package tunnel

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/conn/bindtest"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"podnet.dev/internal/key"
)

// What the device makes of a packet counts what the packet counted, also where
// packets exceed the MTU that the TUN tells (a stack with large TCP segments).
func TestPaddingIsTheDevices(t *testing.T) {
	for _, c := range []struct{ size, mtu, want int }{
		{1, 1420, 16}, {16, 1420, 16}, {17, 1420, 32}, {1408, 1420, 1408}, {1409, 1420, 1420}, {1420, 1420, 1420},
		{1421, 1420, 1436}, {2840, 1420, 2840}, {16000, 1420, 16004}, {16384, 16384, 16384},
	} {
		if got := padded(c.size, c.mtu); got != c.want {
			t.Errorf("padded(%d, %d) = %d, want %d", c.size, c.mtu, got, c.want)
		}
	}
}

func TestOnlyDataCounts(t *testing.T) {
	data := make([]byte, 1420+device.MessageTransportSize)
	data[0] = device.MessageTransportType
	if got := dataUnits(data); got != units(1420) {
		t.Errorf("data counts %d, want %d", got, units(1420))
	}
	for name, m := range map[string][]byte{
		"nothing": nil, "keepalive": {4, 31: 0}, "initiation": {1, 147: 0},
	} {
		if got := dataUnits(m); got != 0 {
			t.Errorf("%s counts %d", name, got)
		}
	}
}

// A slow stream needs no more than a batch in the device, where no other peer
// needs more.
func TestWindowIsNarrowInFrontOfASlowStream(t *testing.T) {
	w := newWindow(sendPatienceAlone)
	w.add(narrow / unit)
	for _, c := range []struct {
		took, patience time.Duration
		room           bool
	}{
		{slowSend / 2, sendPatienceAlone, true},
		{2 * slowSend, sendPatienceAlone, false},
		{2 * slowSend, sendPatience, true},
		{slowSend / 2, sendPatienceAlone, true},
	} {
		w.setPatience(c.patience)
		w.took(c.took)
		w.mu.Lock()
		if got := w.roomLocked(); got != c.room {
			t.Errorf("after a send of %v, with patience %v, room is %v", c.took, c.patience, got)
		}
		w.mu.Unlock()
	}
}

func TestWindowHoldsBackAndLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(time.Second)
		w.add(w.limit - 1)
		start := time.Now()
		w.wait()
		if time.Since(start) != 0 {
			t.Error("a window that is not full held back")
		}
		w.add(1)
		var wait sync.WaitGroup
		for range 3 { // several receivers share a window
			wait.Go(w.wait)
		}
		time.Sleep(900 * time.Millisecond)
		w.remove(10)
		wait.Wait()
		if d := time.Since(start); d != 900*time.Millisecond {
			t.Errorf("let go after %v, want when something arrived", d)
		}
	})
}

func TestWindowForgetsWhatNeverArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(time.Second)
		time.Sleep(time.Hour) // idle time is no stall
		w.add(w.limit)
		start := time.Now()
		w.wait()
		if d := time.Since(start); d != time.Second {
			t.Errorf("held back for %v, want its patience", d)
		}
		w.wait()
		if w.sum != 0 {
			t.Errorf("still counts %d", w.sum)
		}
		w.remove(5) // late ones do no harm
		if w.sum != 0 {
			t.Errorf("counts %d after a late arrival", w.sum)
		}
	})
}

// slowBind takes a batch per second; stubTUN has packets without end.
type slowBind struct{ conn.Bind }

func (slowBind) Send([][]byte, conn.Endpoint) error { time.Sleep(time.Second); return nil }

type stubTUN struct{ tun.Device }

func (stubTUN) Close() error      { return nil }
func (stubTUN) MTU() (int, error) { return 1420, nil }
func (stubTUN) Read(bufs [][]byte, sizes []int, _ int) (int, error) {
	for i := range sizes {
		sizes[i] = 1420
	}
	return len(sizes), nil
}

func TestSlowBindHoldsTheTUNBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		send, recv := newWindow(3*time.Second), newWindow(recvPatience)
		dev := &windowTUN{Device: stubTUN{}, send: send, recv: recv}
		bind := &windowBind{Bind: slowBind{}, send: send, recv: recv}
		read := 0
		queue := make(chan int, 10000)
		var worker sync.WaitGroup
		worker.Go(func() {
			m := make([]byte, 1420+device.MessageTransportSize)
			m[0] = device.MessageTransportType
			for n := range queue {
				batch := make([][]byte, n)
				for i := range batch {
					batch[i] = m
				}
				bind.Send(batch, nil)
			}
		})
		stop := time.Now().Add(20 * time.Second)
		sizes := make([]int, 32)
		for time.Now().Before(stop) {
			n, _ := dev.Read(make([][]byte, 32), sizes, 0)
			queue <- n
			read += n
		}
		close(queue)
		worker.Wait()
		if sent := 20 * 32; read > sent+2*send.limit*unit/1420 {
			t.Errorf("read %d packets while %d could be sent", read, sent)
		}
	})
}

func TestClosedTUNHoldsNobodyBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(time.Hour)
		dev := &windowTUN{Device: stubTUN{}, send: w, recv: newWindow(time.Hour)}
		w.add(w.limit)
		done := make(chan struct{})
		go func() { w.wait(); close(done) }()
		synctest.Wait()
		start := time.Now()
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
		dev.Close() // the device may close it again
		<-done
		if time.Since(start) != 0 {
			t.Error("held back after Close")
		}
	})
}

// The count comes back to nothing after real traffic of all sizes through a real
// device: a window that drifts would choke the tunnel after an hour.
func TestWindowDoesNotDrift(t *testing.T) {
	binds := bindtest.NewChannelBinds()
	var tunnels [2]*Tunnel
	var tuns [2]*tuntest.ChannelTUN
	var keys [2]key.Private
	for i := range tunnels {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		tuns[i], keys[i] = tuntest.NewChannelTUN(), k
		if tunnels[i], err = New(tuns[i].TUN(), binds[i], Config{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
		defer tunnels[i].Close()
	}
	for i := range tunnels {
		other := 1 - i
		ip := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(other)}), 32)
		err := tunnels[i].SetPeers([]Peer{{PublicKey: keys[other].Public(), Endpoint: fmt.Sprintf("127.0.0.1:%d", other), AllowedIPs: []netip.Prefix{ip}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	w := tunnels[0].send
	const base = 1000 // shows a count that goes down too far, too
	w.add(base)
	for size := 20; size < 5000; size += 37 {
		p := make([]byte, size)
		copy(p, tuntest.Ping(netip.AddrFrom4([4]byte{10, 0, 0, 1}), netip.AddrFrom4([4]byte{10, 0, 0, 0}))[:20])
		p[2], p[3] = byte(size>>8), byte(size)
		tuns[0].Outbound <- p
		<-tuns[1].Inbound
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		sum := w.sum
		w.mu.Unlock()
		if sum == base {
			return
		}
		if time.Since(start) > 2*time.Second {
			t.Fatalf("the count has drifted by %d units", sum-base)
		}
	}
}
