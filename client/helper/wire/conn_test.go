//go:build unix

package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ends are both ends of a connection.
func ends(t testing.TB) (client, server *Conn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return NewConn(a), NewConn(b)
}

// TestFilesComeWithTheirAnswer: also when several answers arrive at once, long ones
// among them.
func TestFilesComeWithTheirAnswer(t *testing.T) {
	client, server := ends(t)
	var files []syscall.Conn
	for _, text := range []string{"first", "second", "third"} {
		path := filepath.Join(t.TempDir(), text)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	sent := make(chan error, 1)
	go func() {
		for _, send := range []func() error{
			func() error { return server.WriteAnswer(Answer{Interface: "podnet0"}, files[0]) },
			func() error { return server.WriteAnswer(Answer{Warning: strings.Repeat("long ", 60000)}) },
			func() error { return server.WriteAnswer(Answer{Packets: 1, Streams: 1}, files[1:]...) },
			server.Close,
		} {
			if err := send(); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i, want := range [][]string{{"first"}, {}, {"second", "third"}} {
		a, got, err := client.ReadAnswer()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || i == 1 && len(a.Warning) != 300000 {
			t.Fatalf("answer %d: %d files", i, len(got))
		}
		for j, f := range got {
			if text, err := io.ReadAll(f); err != nil || string(text) != want[j] {
				t.Errorf("file %d of answer %d has %q, %v", j, i, text, err)
			}
			_ = f.Close()
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if _, _, err := client.ReadAnswer(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v", err)
	}
}

func TestLengthIsBounded(t *testing.T) {
	for _, n := range []uint32{0, MaxMessage + 1, 1<<32 - 1} {
		client, server := ends(t)
		if _, err := client.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
			t.Fatal(err)
		}
		if _, err := server.ReadRequest(); err == nil {
			t.Errorf("a message of %d bytes passes", n)
		}
	}
}

// FuzzStream has anybody's bytes read as requests and as answers: they end in an
// error, and take no more memory than a message may have.
func FuzzStream(f *testing.F) {
	b, err := frame(Request{Verb: Hello, Version: Version})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append(b, b[:7]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		client, server := ends(t)
		go func() {
			_, _ = client.Write(b)
			_ = client.CloseWrite()
		}()
		for {
			if _, err := server.ReadRequest(); err != nil {
				break
			}
		}
		asking, answering := ends(t)
		go func() {
			_, _ = answering.Write(b)
			_ = answering.CloseWrite()
		}()
		for {
			if _, _, err := asking.ReadAnswer(); err != nil {
				return
			}
		}
	})
}
