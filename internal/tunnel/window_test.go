package tunnel

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

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

// pair is two tunnels that are each other's peers.
type pair struct {
	tunnels [2]*Tunnel
	tuns    [2]*tuntest.ChannelTUN
}

// newPair makes one, with TUNs that wrap makes of its own.
func newPair(t *testing.T, wrap func(tun.Device) tun.Device) (p pair) {
	t.Helper()
	binds := bindtest.NewChannelBinds()
	var keys [2]key.Private
	for i := range p.tunnels {
		k, err := key.NewPrivate()
		if err != nil {
			t.Fatal(err)
		}
		p.tuns[i], keys[i] = tuntest.NewChannelTUN(), k
		if p.tunnels[i], err = New(wrap(p.tuns[i].TUN()), binds[i], Config{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.tunnels[i].Close() })
	}
	for i := range p.tunnels {
		other := 1 - i
		ip := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(other)}), 32)
		err := p.tunnels[i].SetPeers([]Peer{{PublicKey: keys[other].Public(), Endpoint: fmt.Sprintf("127.0.0.1:%d", other), AllowedIPs: []netip.Prefix{ip}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// pass sends a packet of a size from the first to the second.
func (p pair) pass(size int) {
	b := make([]byte, size)
	copy(b, tuntest.Ping(netip.AddrFrom4([4]byte{10, 0, 0, 1}), netip.AddrFrom4([4]byte{10, 0, 0, 0}))[:20])
	b[2], b[3] = byte(size>>8), byte(size)
	p.tuns[0].Outbound <- b
	<-p.tuns[1].Inbound
}

// The count comes back to nothing after real traffic of all sizes through a real
// device: a window that drifts would choke the tunnel after an hour.
func TestWindowDoesNotDrift(t *testing.T) {
	p := newPair(t, func(d tun.Device) tun.Device { return d })
	w := p.tunnels[0].send
	const base = 1000 // shows a count that goes down too far, too
	w.add(base)
	for size := 20; size < 5000; size += 37 {
		p.pass(size)
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

// watched notes the buffers of the packets that go through a TUN.
type watched struct {
	tun.Device
	mu          sync.Mutex
	read, wrote []weak.Pointer[byte]
}

func (w *watched) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := w.Device.Read(bufs, sizes, offset)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range bufs[:n] {
		w.read = append(w.read, weak.Make(&b[0]))
	}
	return n, err
}

func (w *watched) Write(bufs [][]byte, offset int) (int, error) {
	w.mu.Lock()
	for _, b := range bufs {
		w.wrote = append(w.wrote, weak.Make(&b[0]))
	}
	w.mu.Unlock()
	return w.Device.Write(bufs, offset)
}

// kept counts those buffers that are not free yet.
func (w *watched) kept() (read, wrote int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := func(all []weak.Pointer[byte]) (n int) {
		for _, p := range all {
			if p.Value() != nil {
				n++
			}
		}
		return n
	}
	return count(w.read), count(w.wrote)
}

// Of packets that have gone nothing is kept, however many peers there are. Only what the
// device reads next into may be a buffer that it had before.
func TestNothingIsKeptOfWhatWasSent(t *testing.T) {
	var ends []*watched
	p := newPair(t, func(d tun.Device) tun.Device {
		ends = append(ends, &watched{Device: d})
		return ends[len(ends)-1]
	})
	for size := range 100 {
		p.pass(100 + size)
		runtime.GC() // pools are empty from now on, and again
		runtime.GC()
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		read, _ := ends[0].kept()
		_, wrote := ends[1].kept()
		if read == 0 && wrote == 0 {
			return
		}
		if time.Since(start) > 5*time.Second {
			t.Fatalf("of what was sent %d buffers are kept, of what was received %d", read, wrote)
		}
	}
}
