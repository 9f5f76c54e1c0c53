package ground

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestCallersAreBounded has one address open connections without end. Another one, such
// as the kubelet's, is answered meanwhile, and the first again when it has ended some.
func TestCallersAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() {
		served <- ServeHTTP(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	}()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func(c net.Conn) bool {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"); err != nil {
			return false
		}
		_, err := c.Read(make([]byte, 1))
		return err == nil
	}
	var open []net.Conn
	for range 10 * callerConns {
		if c := dial("127.0.0.1"); answered(c) {
			open = append(open, c)
		} else {
			_ = c.Close()
		}
	}
	if len(open) != callerConns {
		t.Errorf("one address has %d connections", len(open))
	}
	other := dial("127.0.0.2")
	defer other.Close()
	if !answered(other) {
		t.Error("another address is not answered")
	}
	for _, c := range open {
		_ = c.Close()
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		again := dial("127.0.0.1")
		if ok := answered(again); ok || time.Now().After(end) {
			_ = again.Close()
			if !ok {
				t.Error("the first address is not answered any more")
			}
			break
		}
		_ = again.Close()
	}
}
