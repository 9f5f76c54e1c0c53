package rawtcp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 10 * time.Second

// pair returns the two ends of a connection.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := New(here.(*net.TCPConn))
	there.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close(); there.Close() })
	return c, there.(*net.TCPConn)
}

// All arrives, also what no socket has room for at once, and so does the end.
func TestBytesArrive(t *testing.T) {
	c, peer := pair(t)
	sent := make([]byte, 16<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		if n, err := c.Write(sent); n != len(sent) || err != nil {
			t.Error(n, err)
		}
		c.CloseWrite()
	})
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	writer.Wait()

	writer.Go(func() {
		peer.Write(sent)
		peer.CloseWrite()
	})
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("back: %d bytes, %v", len(got), err)
	}
	writer.Wait()
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing into nothing: %d, %v", n, err)
	}
}

func TestDeadline(t *testing.T) {
	c, _ := pair(t)
	c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	c, peer := pair(t)
	peer.SetLinger(0)
	peer.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	var err error
	for began := time.Now(); err == nil && time.Since(began) < patience; {
		_, err = c.Write([]byte("x"))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v", err)
	}
}

// Close ends what waits, and what comes later fails.
func TestClose(t *testing.T) {
	c, _ := pair(t)
	done := make(chan error, 2)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		done <- err
	}()
	c.Close()
	for range 2 {
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if _, err := New(c.TCPConn).Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write to one that was closed before: %v", err)
	}
}

// The number of a closed socket may be another one's at once.
func TestClosedConnIsNobodyElse(t *testing.T) {
	for range 200 {
		c, _ := pair(t)
		var writer sync.WaitGroup
		writer.Go(func() {
			for {
				if _, err := c.Write([]byte("stray")); err != nil {
					return
				}
			}
		})
		c.Close()
		next, peer := pair(t)
		writer.Wait()
		next.Close()
		if got, err := io.ReadAll(peer); err != nil || len(got) > 0 {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestReadAndWriteAllocateNothing(t *testing.T) {
	c, peer := pair(t)
	go io.Copy(peer, peer)
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
	}); n > 1 { // the other end may need some
		t.Errorf("%v allocations", n)
	}
}
