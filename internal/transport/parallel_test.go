package transport

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tlsRelay relays from a TLS listener to a TLS or plain address, as the API
// server and the kubelet do.
func tlsRelay(t testing.TB, to string, outTLS bool) string {
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	t.Cleanup(certificate.Close)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wait.Wait() })
	wait.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				t.Error(err)
				in.Close()
				return
			}
			if outTLS {
				out = tls.Client(out, &tls.Config{InsecureSkipVerify: true})
			}
			wait.Go(func() { hop{}.copy(out, in); out.Close() })
			wait.Go(func() { hop{}.copy(in, out); in.Close() })
		}
	})
	return ln.Addr().String()
}

// BenchmarkParallelStreams is the sum of what 1, 2 and 4 streams carry, each with
// a sender of its own, through two relays that encrypt (API server and kubelet)
// or do not. docs/adr/0008-one-stream-per-session.md is about its result.
func BenchmarkParallelStreams(b *testing.B) {
	for _, encrypted := range []bool{false, true} {
		for _, n := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("tls=%v/streams=%d", encrypted, n), func(b *testing.B) {
				for b.Loop() {
					b.ReportMetric(parallel(b, encrypted, n)/1e6, "Mbit/s")
					b.ReportMetric(0, "ns/op")
				}
			})
		}
	}
}

func parallel(b *testing.B, encrypted bool, n int) (rate float64) {
	var got atomic.Int64
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for range n {
		var laptop, gateway net.Conn
		if encrypted {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			api := tlsRelay(b, tlsRelay(b, ln.Addr().String(), false), true)
			if laptop, err = tls.Dial("tcp", api, &tls.Config{InsecureSkipVerify: true}); err != nil {
				b.Fatal(err)
			}
			if gateway, err = ln.Accept(); err != nil {
				b.Fatal(err)
			}
			ln.Close()
		} else {
			laptop, gateway = relayed(b, hop{})
		}
		start(b, laptop, func(m []byte) { got.Add(int64(len(m))) })
		c := start(b, gateway, func([]byte) {})
		batch := [][]byte{message(16416, 2), message(16416, 3), message(16416, 4), message(16416, 5)}
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					c.send(batch, stop)
				}
			}
		})
	}
	time.Sleep(time.Second) // slow start
	before := got.Load()
	begin := time.Now()
	time.Sleep(5 * time.Second)
	rate = float64(got.Load()-before) * 8 / time.Since(begin).Seconds()
	close(stop)
	wait.Wait()
	return rate
}
