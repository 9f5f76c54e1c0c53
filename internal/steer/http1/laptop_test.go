package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/steer"
)

func TestLaptopThatDoesNotAnswer(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	c := w.client()
	const refused = "podnet: this request is steered to the laptop of ada, which does not answer"
	c.send(get("/1", forAda))
	if r := c.want(502, refused); r.Header.Get(steer.SteeredBy) != "ada" {
		t.Error(r.Header)
	}
	c.send(get("/2", "")) // the connection is as good as before
	c.want(200, "app GET /2")
	s := w.until("the refusal", func(s steer.Seen) bool { return s.Target == "/1" })
	if s.Status != 502 || s.Err == nil || s.Rule == nil {
		t.Errorf("seen %+v", s)
	}
	c.send(post("/3", forAda, "x"))
	if r := c.want(502, refused); !r.Close {
		t.Error("a request that nobody reads does not end the connection")
	}
	c.wantEnd()
	w.until("the second refusal", func(s steer.Seen) bool { return s.Target == "/3" && s.Status == 502 })
}

func TestLaptopThatIsSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for dialTime")
	}
	w := newTown(t, "", steal())
	w.laptops["ada"] = "silence"
	c := w.client()
	began := time.Now()
	c.send(get("/", forAda))
	c.want(502, "podnet: this request is steered to the laptop of ada, which does not answer")
	if took := time.Since(began); took > 3*dialTime {
		t.Errorf("took %s", took)
	}
}

func TestAppForLaptopThatDoesNotAnswer(t *testing.T) {
	rule := steal()
	rule.ToApp = true
	w := newTown(t, serveHTTP(t, named("app")), rule)
	c := w.client()
	c.send(get("/1", forAda) + post("/2", forAda, "hello"))
	c.want(200, "app GET /1")
	c.want(200, "app POST /2 hello")
	w.until("the failure", func(s steer.Seen) bool { return s.Target == "/1" && s.Rule != nil && s.Err != nil })
	w.until("the answer", func(s steer.Seen) bool { return s.Target == "/1" && s.Rule == nil && s.Status == 200 })

	// The same when it dies before it has said anything.
	w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) { http.ReadRequest(bufio.NewReader(c)) })
	c.send(get("/3", forAda))
	c.want(200, "app GET /3")
	c.send(get("/4", ""))
	c.want(200, "app GET /4")
	c.send(post("/5", forAda, "has had the body"))
	c.want(502, "podnet: this request is steered to the laptop of ada, which does not answer")
}

func TestLaptopThatDies(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	for name, reset := range map[string]bool{"ends": false, "is reset": true} {
		w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) {
			if reset {
				c.SetLinger(0)
			}
			r := bufio.NewReader(c)
			http.ReadRequest(r)
			io.WriteString(c, ok)
			http.ReadRequest(r)
			io.WriteString(c, ok[:len(ok)-1])
			time.Sleep(20 * time.Millisecond)
		})
		c := w.client()
		c.send(get("/", forAda))
		c.want(200, "ok")
		c.send(get("/", forAda))
		if b, err := io.ReadAll(c.r); err == nil || !strings.HasPrefix(ok, string(b)) {
			t.Errorf("the laptop's connection %s: %q, %v; want a reset", name, b, err)
		}
	}
	w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) { http.ReadRequest(bufio.NewReader(c)) })
	c := w.client()
	c.send(get("/", forAda))
	c.want(502, "podnet: this request is steered to the laptop of ada, which does not answer")
	c.send(get("/", ""))
	c.want(200, "app GET /")
}

// A server may end an idle connection as a request is on its way.
func TestStaleLaptopConnection(t *testing.T) {
	w := newTown(t, "", steal())
	w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		http.ReadRequest(r)
		io.WriteString(c, ok)
		http.ReadRequest(r)
	})
	c := w.client()
	c.send(get("/1", forAda))
	c.want(200, "ok")
	c.send(get("/2", forAda))
	c.want(200, "ok")
	if n := w.dials("ada"); n != 2 {
		t.Errorf("%d connections", n)
	}
	c.send("POST /3 HTTP/1.1\r\nHost: a\r\n" + forAda + "\r\n") // is not to be repeated
	c.want(502, "podnet: this request is steered to the laptop of ada, which does not answer")
}

// The app's timeouts know nothing of the laptop's requests, nor does the client
// of the app's.
func TestAppEndsWhileLaptopIsUsed(t *testing.T) {
	l := listen(t)
	s := &http.Server{Handler: named("app"), IdleTimeout: 20 * time.Millisecond}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	w := newTown(t, l.Addr().String(), steal())
	w.laptops["ada"] = serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		named("ada")(w, r)
	})
	c := w.client()
	for range 2 {
		c.send(get("/1", "") + get("/2", forAda))
		c.want(200, "app GET /1")
		c.want(200, "ada GET /2")
	}
	if n := w.dials("app"); n != 2 {
		t.Errorf("%d connections to the app", n)
	}
}

// It has a reason to end when it was asked to.
func TestAppEndsAsItWasAsked(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	w.laptops["ada"] = serveHTTP(t, named("ada"))
	c := w.client()
	c.send(get("/1", forAda))
	c.want(200, "ada GET /1")
	c.send("GET /2 HTTP/1.0\r\n\r\n")
	c.want(200, "app GET /2")
	c.wantEnd()
}

// The client's connection ends when a server would have ended it.
func TestLastResponse(t *testing.T) {
	for _, c := range []struct{ name, request, response, body string }{
		{"close of the client", get("/", forAda+"Connection: close\r\n"), ok, "ok"},
		{"close of the laptop", get("/", forAda), "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok"},
		{"1.0", "GET / HTTP/1.0\r\n" + forAda + "\r\n", ok, "ok"},
		{"until the end", get("/", forAda), "HTTP/1.1 200 OK\r\n\r\nok", "ok"},
		{"odd", get("/", forAda), "HTTP/1.1 200 OK\nConnection: close\n\nok", "ok"},
	} {
		w := newTown(t, "", steal())
		w.laptops["ada"] = serveRaw(t, func(conn *net.TCPConn) {
			http.ReadRequest(bufio.NewReader(conn))
			io.WriteString(conn, c.response)
			if c.response == ok {
				io.Copy(io.Discard, conn) // keeps it
			}
		})
		conn := w.client()
		conn.send(c.request + get("/behind", ""))
		got, err := io.ReadAll(conn.r)
		if err != nil || string(got) != c.response {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if w.dials("app") > 0 {
			t.Errorf("%s: the app was asked", c.name)
		}
	}
}

// What comes behind the last request the app would not read, or read as it likes: it
// is nobody else's.
func TestBehindTheLastRequest(t *testing.T) {
	const bye = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
	for _, c := range []struct{ name, request, response string }{
		{"close of the client", get("/1", "Connection: close\r\n"), ok},
		{"1.0", "GET /1 HTTP/1.0\r\n\r\n", ok},
		{"close of the app", get("/1", ""), bye},
	} {
		behind := get("/2", forAda)
		heard := make(chan string, 1)
		app := serveRaw(t, func(conn *net.TCPConn) {
			r := bufio.NewReader(conn)
			http.ReadRequest(r)
			io.WriteString(conn, c.response)
			b := make([]byte, len(behind))
			n, _ := io.ReadFull(r, b) // it is in no hurry to end
			heard <- string(b[:n])
		})
		w := newTown(t, app, steal(), steer.Rule{
			Name: "copies", Owner: "eve", Protocol: steer.TCP, Port: 8080, Mode: steer.Mirror,
			Matches: []steer.Match{{Path: "/2"}},
		})
		w.laptops["ada"] = serveHTTP(t, named("ada"))
		conn := w.client()
		conn.send(c.request + behind)
		got, err := io.ReadAll(conn.r)
		if err != nil || string(got) != c.response {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if b := <-heard; b != behind {
			t.Errorf("%s: the app read %q", c.name, b)
		}
		if w.dials("ada") > 0 || w.dials("eve") > 0 {
			t.Errorf("%s: what is behind was decided", c.name)
		}
	}
}

// A laptop has a connection to itself that it was asked to switch, and no other:
// what a proxy's other clients send on it is not for the laptop.
func TestLaptopSwitchesUnasked(t *testing.T) {
	w := newTown(t, serveHTTP(t, named("app")), steal())
	const answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello"
	answered, heard := make(chan bool), make(chan string, 1)
	w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		http.ReadRequest(r)
		io.WriteString(c, answer)
		<-answered
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		b, _ := io.ReadAll(r)
		heard <- string(b)
	})
	c := w.client()
	c.send(get("/1", forAda))
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != answer {
		t.Fatalf("%q, %v", got, err)
	}
	c.send(get("/2", "cookie: session=bob\r\n"))
	close(answered)
	if b := <-heard; b != "" {
		t.Errorf("the laptop got %q", b)
	}
	c.wantEnd()
}

func TestOddBodyOfStolenRequest(t *testing.T) {
	w := newTown(t, "", steal())
	w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	c := w.client()
	c.send(strings.Replace(chunkedHead, "\r\n\r\n", "\r\n"+forAda+"\r\n", 1) + "3\r\nabc")
	for began := time.Now(); w.dials("ada") == 0 && time.Since(began) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	c.send("odd" + get("/", ""))
	if b, err := io.ReadAll(c.r); err == nil || len(b) > 0 {
		t.Errorf("%q, %v; want a reset", b, err)
	}
}

func TestClientAddressInHeader(t *testing.T) {
	rule := steal()
	rule.ClientAddress = steer.ClientByHeader
	w := newTown(t, "", rule)
	w.laptops["ada"] = serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Header["X-Forwarded-For"], string(b))
	})
	c := w.client()
	c.send(post("/", forAda+"X-Forwarded-For: 192.0.2.1\r\n", "abc"))
	c.want(200, "[192.0.2.1 127.0.0.1]abc")
}

func TestClientAddressInProxyHeader(t *testing.T) {
	rule := steal()
	rule.ClientAddress = steer.ClientByProxy
	w := newTown(t, "", rule)
	got := make(chan []byte, 1)
	w.laptops["ada"] = serveRaw(t, func(c *net.TCPConn) {
		b := make([]byte, 28)
		io.ReadFull(c, b)
		got <- b
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, ok)
		}
	})
	c := w.client()
	c.send(get("/", forAda) + get("/", forAda)) // once for each connection
	c.want(200, "ok")
	c.want(200, "ok")
	if want := steer.AppendProxyHeader(nil, c.LocalAddr(), c.RemoteAddr()); !bytes.Equal(<-got, want) {
		t.Errorf("not %x", want)
	}
}
