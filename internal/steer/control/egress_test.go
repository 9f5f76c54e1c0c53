package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"podnet.dev/internal/steer"
)

// TestOpenIsReadAlone: what follows the line is the flow's.
func TestOpenIsReadAlone(t *testing.T) {
	var b bytes.Buffer
	want := Open{Protocol: steer.TCP, To: netip.MustParseAddrPort("[fd00::1]:443"), Rule: "alice-web"}
	if err := Write(&b, want); err != nil {
		t.Fatal(err)
	}
	b.WriteString("GET / HTTP/1.1\n")
	var got Open
	if err := ReadOpen(&b, &got); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if rest := b.String(); rest != "GET / HTTP/1.1\n" {
		t.Errorf("what is left is %q", rest)
	}
	for text, want := range map[string]string{
		"":                                    "EOF",
		"{":                                   "unexpected EOF",
		"{\n":                                 "read a line",
		strings.Repeat(" ", maxOpen) + "{}\n": "4 KiB",
	} {
		if err := ReadOpen(strings.NewReader(text), new(Open)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v, want %s", text, err, want)
		}
	}
}

// TestErrorsComeBackAsTheyWere: a laptop is told what a target is like.
func TestErrorsComeBackAsTheyWere(t *testing.T) {
	for err, want := range map[error]error{
		syscall.ECONNREFUSED: syscall.ECONNREFUSED, syscall.ECONNRESET: syscall.ECONNREFUSED,
		syscall.EHOSTUNREACH: syscall.EHOSTUNREACH, syscall.EHOSTDOWN: syscall.EHOSTUNREACH, syscall.ENETUNREACH: syscall.ENETUNREACH,
		syscall.EACCES: syscall.EACCES, syscall.EPERM: syscall.EACCES, syscall.EMFILE: syscall.EMFILE,
		syscall.ETIMEDOUT: syscall.ETIMEDOUT, context.DeadlineExceeded: syscall.ETIMEDOUT, os.ErrDeadlineExceeded: syscall.ETIMEDOUT,
	} {
		var b bytes.Buffer
		if werr := Write(&b, Outcome(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", fmt.Errorf("x: %w", err))})); werr != nil {
			t.Fatal(werr)
		}
		var o Opened
		if rerr := ReadOpen(&b, &o); rerr != nil || !errors.Is(o.Err(), want) || !strings.Contains(o.Err().Error(), "dial tcp") {
			t.Errorf("%v became %v (%v)", err, o.Err(), rerr)
		}
	}
	if err := Outcome(nil).Err(); err != nil {
		t.Errorf("no error became %v", err)
	}
	odd := Outcome(errors.New(strings.Repeat("x", 4000)))
	if err := odd.Err(); err == nil || len(err.Error()) > 600 || odd.Code != "" {
		t.Errorf("%+v, %v", odd, err)
	}
	if err := (Opened{Code: "new"}).Err(); err == nil {
		t.Error("a code that is not known is no error")
	}
}

// duplex is both ends of a connection that keeps what is written.
type duplex struct{ bytes.Buffer }

func (*duplex) Close() error { return nil }

func TestDatagramsKeepTheirBounds(t *testing.T) {
	var c duplex
	d := NewDatagrams(&c)
	sizes := []int{0, 1, 1200, 0, 40000, 65535, 7}
	for _, n := range sizes {
		if err := d.Send(bytes.Repeat([]byte{byte(n)}, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Send(make([]byte, 65536)); !errors.Is(err, ErrDatagram) {
		t.Errorf("one that is too long: %v", err)
	}
	for _, want := range sizes {
		n, err := d.Next()
		b := make([]byte, n)
		if err == nil {
			err = d.Receive(b)
		}
		if err != nil || n != want || !bytes.Equal(b, bytes.Repeat([]byte{byte(want)}, want)) {
			t.Fatalf("%d bytes became %d: %v", want, n, err)
		}
	}
	if _, err := d.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for cut := range 3 {
		c.Reset()
		if err := d.Send([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		c.Truncate(1 + cut)
		d := NewDatagrams(&c)
		n, err := d.Next()
		if err == nil {
			err = d.Receive(make([]byte, n))
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", 1+cut, err)
		}
	}
}
