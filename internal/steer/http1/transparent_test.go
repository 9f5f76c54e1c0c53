package http1

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/http1/corpus"
)

// everything is a rule that takes any request there is.
func everything() steer.Rule {
	r := steal()
	r.Matches = []steer.Match{{Method: "*"}}
	return r
}

// conversation is what an app got and what its client did.
type conversation struct{ atApp, atClient string }

// talk sends the pieces, says that this was all, and reads what comes. The app
// reads all and then answers.
func talk(t *testing.T, answer string, rules []steer.Rule, pieces ...string) (conversation, *town) {
	t.Helper()
	got := make(chan string, 1)
	app := serveRaw(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		io.WriteString(c, answer)
		got <- string(b)
	})
	addr, w := app, (*town)(nil)
	if rules != nil {
		w = newTown(t, app, rules...)
		addr = w.addr
	}
	conn := dial(t, addr)
	for _, p := range pieces {
		if _, err := io.WriteString(conn, p); err != nil {
			t.Fatal(err)
		}
	}
	conn.CloseWrite()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case atApp := <-got:
		return conversation{atApp, string(b)}, w
	case <-time.After(10 * time.Second):
		t.Fatalf("the app got nothing, the client %q", b)
		return conversation{}, nil
	}
}

func split(s string) (pieces []string) {
	for i := range len(s) {
		pieces = append(pieces, s[i:i+1])
	}
	return pieces
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// The app gets what is odd as it is, and the laptop nothing of it.
func TestOddRequestsAreTheApps(t *testing.T) {
	check := func(name, text string, cuts ...[]string) {
		t.Run(name, func(t *testing.T) {
			want, _ := talk(t, ok, nil, text)
			for _, pieces := range append(cuts, []string{text}) {
				want.atApp = strings.Join(pieces, "")
				got, w := talk(t, ok, []steer.Rule{everything()}, pieces...)
				if got != want {
					t.Errorf("app %q, client %q", got.atApp, got.atClient)
				}
				if w.dials("ada") > 0 {
					t.Error("the laptop was asked")
				}
				w.until("doubt", func(s steer.Seen) bool { return s.Err != nil && s.Rule == nil && s.In == int64(len(want.atApp)) })
			}
		})
	}
	for _, c := range corpus.Odd {
		text := c.Text + get("/behind", forAda)
		half := len(text) / 2
		check(c.Name, text, []string{text[:half], text[half:]}, split(text[:min(len(text), 300)]))
	}
	for _, c := range corpus.OddBodies { // these only while they come with their heads
		if len(c.Text) < 1000 {
			check("body with "+c.Name, chunkedHead+c.Text+get("/behind", forAda))
		}
	}
}

// A head that is odd in its body only later is the app's too, when it was before.
func TestOddBodiesStayTheApps(t *testing.T) {
	for _, c := range corpus.OddBodies {
		text := chunkedHead + "3\r\nabc\r\n" + c.Text + get("/behind", forAda)
		got, w := talk(t, ok, []steer.Rule{steal()}, chunkedHead+"3\r\nabc", text[len(chunkedHead)+len("3\r\nabc"):])
		if got.atApp != text || got.atClient != ok || w.dials("ada") > 0 {
			t.Errorf("%s: app %q, client %q", c.Name, got.atApp, got.atClient)
		}
	}
}

func TestSaneRequestsArePassedAsTheyAre(t *testing.T) {
	for _, c := range corpus.Sane {
		text := c.Text + post("/behind", "", "abc")
		for _, pieces := range [][]string{{text}, split(text[:min(len(text), 300)])} {
			want := strings.Join(pieces, "")
			if got, _ := talk(t, ok, []steer.Rule{steal()}, pieces...); got.atApp != want || got.atClient != ok {
				t.Errorf("%s: app %q, client %q", c.Name, got.atApp, got.atClient)
			}
		}
	}
}

// The client gets what the app says as it says it, and is told when it says no
// more.
func TestResponsesArePassedAsTheyAre(t *testing.T) {
	answers := slices.Clone(corpus.OddAnswers)
	for _, c := range corpus.Responses {
		answers = append(answers, c.Text, c.Text+c.Rest)
	}
	for _, answer := range answers {
		for _, request := range []string{plain, plain + plain, post("/", "", "abc"), "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"} {
			got, _ := talk(t, answer, []steer.Rule{steal()}, request)
			if got.atApp != request || got.atClient != answer {
				t.Errorf("%.40q to %.20q: app %q, client %q", answer, request, got.atApp, got.atClient)
			}
		}
	}
}

// Bytes pass while a message is not complete, in both directions.
func TestNothingIsHeldBack(t *testing.T) {
	app := serveRaw(t, func(c *net.TCPConn) { io.Copy(c, c) })
	w := newTown(t, app, steal())
	conn := dial(t, w.addr)
	io.WriteString(conn, chunkedHead)
	b := make([]byte, 100)
	if _, err := io.ReadFull(conn, b[:len(chunkedHead)]); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		io.WriteString(conn, "1\r\n")
		if n, err := conn.Read(b); err != nil || string(b[:n]) != "1\r\n" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		io.WriteString(conn, "a\r\n")
		if n, err := conn.Read(b); err != nil || string(b[:n]) != "a\r\n" {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
}

func TestSlowHeadIsTheApps(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for steer.HeadTime")
	}
	got := make(chan string, 1)
	app := serveRaw(t, func(c *net.TCPConn) {
		b := make([]byte, 100)
		n, _ := c.Read(b)
		got <- string(b[:n])
		io.WriteString(c, ok)
		io.Copy(c, c)
	})
	w := newTown(t, app, everything())
	c := w.client()
	began := time.Now()
	c.send("GET / HTTP/1.1\r\nHo")
	if s := <-got; s != "GET / HTTP/1.1\r\nHo" || time.Since(began) < steer.HeadTime {
		t.Errorf("%q after %s", s, time.Since(began))
	}
	c.want(200, "ok")
	c.send("st: a\r\n\r\n")
	c.CloseWrite()
	if b, _ := io.ReadAll(c.r); string(b) != "st: a\r\n\r\n" {
		t.Errorf("%q", b)
	}
}

// A client that is gone is gone for the app as well, and the other way round.
func TestEndsArePassedOn(t *testing.T) {
	ended := make(chan error, 2)
	handler := func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}
	w := newTown(t, serveRaw(t, handler), steal())
	w.laptops["ada"] = serveRaw(t, handler)
	for _, fields := range []string{"", forAda} {
		c := w.client()
		c.send(get("/", fields))
		c.CloseWrite()
		if err := <-ended; err != io.EOF {
			t.Errorf("%q: %v", fields, err)
		}
	}

	w = newTown(t, serveRaw(t, func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok")
		time.Sleep(20 * time.Millisecond)
		c.SetLinger(0)
	}), steal())
	c := w.client()
	c.send(get("/", ""))
	if b, err := io.ReadAll(c.r); err == nil || !strings.HasSuffix(string(b), "ok") {
		t.Errorf("%q, %v; want a reset", b, err)
	}
}

// A server that ends an idle connection ends the client's.
func TestIdleConnectionEndsWithTheApps(t *testing.T) {
	l := listen(t)
	s := &http.Server{Handler: named("app"), IdleTimeout: 50 * time.Millisecond}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	w := newTown(t, l.Addr().String(), steal())
	c := w.client()
	c.send(get("/", ""))
	c.want(200, "app GET /")
	c.wantEnd()
}

// What a server says unasked passes too.
func TestResponseToNothing(t *testing.T) {
	const timeout = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
	w := newTown(t, serveRaw(t, func(c *net.TCPConn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, ok)
		time.Sleep(50 * time.Millisecond)
		io.WriteString(c, timeout)
	}), steal())
	c := w.client()
	c.send(get("/", ""))
	if b, err := io.ReadAll(c.r); err != nil || string(b) != ok+timeout {
		t.Errorf("%q, %v", b, err)
	}
}

// A client that breaks off in a head has sent what it has sent, and is gone.
func TestBrokenHeadIsTheApps(t *testing.T) {
	const text = "GET / HTTP/1.1\r\nHo"
	type end struct {
		got string
		err error
	}
	ended := make(chan end, 1)
	w := newTown(t, serveRaw(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		ended <- end{string(b), err}
	}), everything())
	c := w.client()
	c.send(text)
	c.SetLinger(0)
	c.Close()
	select {
	case e := <-ended:
		if e.got != text || !errors.Is(e.err, syscall.ECONNRESET) {
			t.Errorf("the app got %q, %v", e.got, e.err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the app does not hear of it")
	}
}
