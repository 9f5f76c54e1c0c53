package tunnel

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func TestUnitsSurviveEncryption(t *testing.T) {
	for _, mtu := range []int{1280, 1420, 16384} {
		for size := 1; size <= mtu; size++ {
			padded := min((size+15)/16*16, mtu)
			m := make([]byte, padded+device.MessageTransportSize)
			m[0] = device.MessageTransportType
			if got := dataUnits(m); got != units(size) {
				t.Fatalf("MTU %d: %d bytes count %d before and %d after", mtu, size, units(size), got)
			}
		}
	}
	for name, m := range map[string][]byte{
		"nothing": nil, "keepalive": {4, 31: 0}, "initiation": {1, 147: 0},
	} {
		if got := dataUnits(m); got != 0 {
			t.Errorf("%s counts %d", name, got)
		}
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

func (stubTUN) Close() error { return nil }
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
