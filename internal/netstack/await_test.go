package netstack

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestAwait has a reader be called for whatever there is to read, once each time.
func TestAwait(t *testing.T) {
	a, b := pair(t, DefaultMTU, DefaultMTU)
	ln, at := listen(t, b, b4)
	client, err := a.DialTCP(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := server.(*TCPConn)
	defer c.Close()

	called := make(chan struct{}, 2)
	await := func() { c.Await(func() { called <- struct{}{} }) }
	calls := func(want int, when string) {
		t.Helper()
		for n := 0; ; n++ {
			limit := 5 * time.Second
			if n == want {
				limit = 20 * time.Millisecond
			}
			select {
			case <-called:
			case <-time.After(limit):
				if n != want {
					t.Fatalf("called %d times %s, want %d", n, when, want)
				}
				return
			}
		}
	}
	look := func(want string, wantErr error) {
		t.Helper()
		views, err := c.Peek(make([][]byte, 0, 4), 1<<10)
		if got := bytes.Join(views, nil); string(got) != want || err != wantErr {
			t.Errorf("%q, %v; want %q, %v", got, err, want, wantErr)
		}
		c.Discard(len(want))
	}
	say := func(text string) {
		t.Helper()
		if _, err := client.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}

	look("", ErrEmpty)
	enough := make(chan struct{})
	close(enough)
	if c.WaitData(enough) {
		t.Error("there is data before anything comes")
	}
	await()
	calls(0, "before anything comes")
	say("one")
	calls(1, "when something comes")
	look("one", nil)
	look("", ErrEmpty)

	await()
	say("two")
	calls(1, "when more comes")
	await()
	calls(1, "for what is there already")
	look("two", nil)

	await()
	if err := client.(*TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	calls(1, "at the end")
	look("", io.EOF)

	await()
	calls(1, "after the end")
	c.Interrupt()
	await()
	calls(1, "when interrupted")
	look("", net.ErrClosed)
}
