package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// pair is a connection of this machine's own, as both of its ends see it.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close(); _ = in.Close() })
	for _, c := range []net.Conn{out, in} {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return out.(*net.TCPConn), in.(*net.TCPConn)
}

// join has a client and a server whose connections are joined.
func join(t *testing.T, there, back func([]byte)) (client, server *net.TCPConn, over <-chan error) {
	t.Helper()
	client, a := pair(t)
	b, server := pair(t)
	done := make(chan error, 1)
	go func() {
		err := Join(a, b, there, back)
		_, _ = a.Close(), b.Close()
		done <- err
	}()
	return client, server, done
}

// TestAnswerAfterTheQuestionHasEnded: one side has said all, the other goes on.
func TestAnswerAfterTheQuestionHasEnded(t *testing.T) {
	var asked, answered bytes.Buffer
	client, server, over := join(t, func(b []byte) { asked.Write(b) }, func(b []byte) { answered.Write(b) })
	question := bytes.Repeat([]byte("question"), 100_000) // takes the larger buffers
	go func() {
		_, _ = client.Write(question)
		_ = client.CloseWrite()
	}()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, question) {
		t.Fatalf("the server got %d bytes, %v", len(got), err)
	}
	if _, err := io.WriteString(server, "answer"); err != nil {
		t.Fatal(err)
	}
	_ = server.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("the client got %q, %v", got, err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(asked.Bytes(), question) || answered.String() != "answer" {
		t.Errorf("seen were %d bytes there and %q back", asked.Len(), answered.String())
	}
}

// TestResetGoesThrough: who breaks one connection breaks the other.
func TestResetGoesThrough(t *testing.T) {
	client, server, over := join(t, nil, nil)
	Reset(client)
	if _, err := io.ReadAll(server); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server hears %v", err)
	}
	if err := <-over; err == nil {
		t.Error("it ended well")
	}
}

// TestQuestionIsSeenBeforeItsAnswer: the other end has it only after tee has.
func TestQuestionIsSeenBeforeItsAnswer(t *testing.T) {
	seen := false
	to := fakeConn{write: func() {
		if !seen {
			t.Error("it was passed on before it was seen")
		}
	}}
	if n, err := Carry(to, bytes.NewBufferString("question"), func([]byte) { seen = true }); n != 8 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// fakeConn is told of what is written.
type fakeConn struct {
	net.Conn
	write func()
}

func (c fakeConn) Write(b []byte) (int, error) { c.write(); return len(b), nil }
func (c fakeConn) Close() error                { return nil }
