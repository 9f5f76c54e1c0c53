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

// FuzzReadOpen gives either end of a flow whatever the other might begin with: a line is
// read, and nothing behind it.
func FuzzReadOpen(f *testing.F) {
	f.Add([]byte(`{"protocol":"tcp","to":"10.0.0.1:80","rule":"a"}` + "\nGET / HTTP/1.1\r\n"))
	f.Add([]byte(`{"error":"no","code":"refused"}` + "\n"))
	f.Add([]byte("{\"to\":\"[fe80::1%eth0]:1\"}\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(Open), new(Opened)} {
			r := bytes.NewReader(b)
			if err := ReadOpen(r, v); err != nil {
				continue
			}
			if line := bytes.IndexByte(b, '\n') + 1; line == 0 || r.Len() != len(b)-line {
				t.Fatalf("of %d bytes %d are left behind a line of %d", len(b), r.Len(), line)
			}
			if o, ok := v.(*Opened); ok && (*o == Opened{}) != (o.Err() == nil) {
				t.Errorf("%+v is %v", o, o.Err())
			}
		}
	})
}

// FuzzDatagrams has one end send whatever the fuzzer makes of a stream, and reads it.
func FuzzDatagrams(f *testing.F) {
	f.Add([]byte("\x00\x02hi\x00\x00\x00\x01x"))
	f.Add([]byte("\xff\xffshort"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var again bytes.Buffer
		in, out := NewDatagrams(pipe{Reader: bytes.NewReader(stream)}), NewDatagrams(pipe{Writer: &again})
		for {
			n, err := in.Next()
			if err != nil {
				break
			}
			b := make([]byte, n)
			if err := in.Receive(b); err != nil {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("a datagram that is cut off: %v", err)
				}
				break
			}
			if err := out.Send(b); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(stream, again.Bytes()) {
			t.Errorf("%x was sent again as %x", stream, again.Bytes())
		}
	})
}

// pipe is one direction of a connection.
type pipe struct {
	io.Reader
	io.Writer
}

func (pipe) Close() error { return nil }
