package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/http1/corpus"
)

const answered = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// thenSays answers a plain request, reads all that comes behind it, gives that to got,
// and says last.
func thenSays(last string, got chan<- string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, len(corpus.Plain))); err != nil {
			return
		}
		io.WriteString(c, answered)
		b, _ := io.ReadAll(c)
		io.WriteString(c, last)
		got <- string(b)
	}
}

// behindPlain says a plain request, and once it is answered the pieces, each of which
// arrives by itself as good as always. It returns what came then.
func behindPlain(t *testing.T, addr string, pieces ...string) string {
	t.Helper()
	c := dial(t, addr)
	c.SetNoDelay(true)
	io.WriteString(c, corpus.Plain)
	if _, err := io.ReadFull(c, make([]byte, len(answered))); err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			t.Fatal(err)
		}
	}
	c.CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// On a connection that was nothing but passed on, whatever comes next is the app's as
// it is.
func TestOddBehindPlainIsTheApps(t *testing.T) {
	got := make(chan string, 1)
	p := newPod(t, serveTCP(t, thenSays(answered, got)), requests())
	addr := p.listen(steer.TCP)
	for _, all := range [][]corpus.Message{corpus.Odd, corpus.OddBodies} {
		for _, m := range all {
			head := ""
			if len(m.Text) > 0 && &all[0] == &corpus.OddBodies[0] {
				head = corpus.ChunkedHead + "3\r\nabc\r\n"
			}
			text := head + m.Text + "GET /behind HTTP/1.1\r\nHost: a\r\nx-user: ada\r\n\r\n"
			half := len(text) / 2
			for _, pieces := range [][]string{{text}, {text[:half], text[half:]}, {head, text[len(head):]}, strings.Split(text[:min(300, len(text))], "")} {
				want := strings.Join(pieces, "")
				if answer := behindPlain(t, addr, pieces...); answer != answered {
					t.Errorf("%s: client %q", m.Name, answer)
				}
				if at := <-got; at != want {
					t.Errorf("%s in %d pieces: app %q", m.Name, len(pieces), at)
				}
			}
		}
	}
	if p.dials("ada") > 0 {
		t.Error("the laptop was asked")
	}
}

// What an app says on such a connection is the client's as it is.
func TestAnswersBehindPlainAreTheClients(t *testing.T) {
	answers := corpus.OddAnswers[:len(corpus.OddAnswers):len(corpus.OddAnswers)]
	for _, r := range corpus.Responses {
		answers = append(answers, r.Text, r.Text+r.Rest)
	}
	answers = append(answers, corpus.DoubtfulResponses...)
	for _, answer := range answers {
		got := make(chan string, 1)
		p := newPod(t, serveTCP(t, thenSays(answer, got)), requests())
		addr := p.listen(steer.TCP)
		for _, request := range []string{corpus.Plain, corpus.Plain + corpus.Plain, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "", "GET / HTTP/1.0\r\n\r\n"} {
			if at := behindPlain(t, addr, request); at != answer {
				t.Errorf("%.40q to %.20q: client %q", answer, request, at)
			}
			if at := <-got; at != request {
				t.Errorf("%.40q to %.20q: app %q", answer, request, at)
			}
		}
		p.Close()
	}
}

// Requests of one connection go where they belong, however they are mixed, in
// however many pieces they come, and whether or not anybody waits for an answer.
func TestMixedRequestsAreToldApart(t *testing.T) {
	named := func(name string) net.Addr {
		return serveTCP(t, func(c *net.TCPConn) {
			for r := bufio.NewReader(c); ; {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				b, err := io.ReadAll(req.Body)
				if err != nil {
					return
				}
				text := fmt.Sprintf("%s %s %x", name, req.URL, b)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			}
		})
	}
	p := newPod(t, named("app"), requests())
	p.laptopAt("ada", named("ada").String())
	addr := p.listen(steer.TCP)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			var text strings.Builder
			var want []string
			stolen := rand.IntN(60) // from there on
			for i := range 60 {
				who, user := "app", "bob"
				if i >= stolen && rand.IntN(3) == 0 {
					who, user = "ada", "ada"
				}
				body := strings.Repeat("b", rand.IntN(3)*rand.IntN(40_000))
				method, framing, sent := "GET", "", ""
				switch {
				case body == "":
				case rand.IntN(2) == 0:
					method, framing, sent = "POST", fmt.Sprintf("Content-Length: %d\r\n", len(body)), body
				default:
					method, framing, sent = "POST", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
				}
				fmt.Fprintf(&text, "%s /%d HTTP/1.1\r\nHost: a\r\nx-user: %s\r\n%s\r\n%s", method, i, user, framing, sent)
				want = append(want, fmt.Sprintf("%s /%d %x", who, i, body))
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			go func() {
				for rest := text.String(); rest != ""; {
					n := min(len(rest), 1+rand.IntN(3000))
					if _, err := io.WriteString(conn, rest[:n]); err != nil {
						return // the reader says more
					}
					rest = rest[n:]
				}
			}()
			r := bufio.NewReader(conn)
			for _, want := range want {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := io.ReadAll(resp.Body); string(b) != want || err != nil {
					t.Errorf("%.40q, %v; want %.40q", b, err, want)
					return
				}
			}
		})
	}
	all.Wait()
	if !eventually(func() bool { return p.Conns() == 0 }) {
		t.Errorf("%d connections are still counted", p.Conns())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		if s.Err != nil {
			t.Errorf("%s %s: %v", s.Method, s.Target, s.Err)
		}
	}
}

// A connection that was passed on obeys the rules there are when the next request comes.
func TestPassedConnectionHearsOfRules(t *testing.T) {
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) {
		for io.ReadFull(c, make([]byte, len(corpus.Plain))); ; {
			if _, err := io.WriteString(c, answered); err != nil {
				return
			}
			if _, err := io.ReadFull(c, make([]byte, len(corpus.Plain))); err != nil {
				return
			}
		}
	}), requests())
	p.laptopAt("ada", serveTCP(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, len(corpus.Plain)))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nada")
	}).String())
	c := dial(t, p.listen(steer.TCP))
	r := bufio.NewReader(c)
	ask := func(want string) {
		t.Helper()
		io.WriteString(c, corpus.Plain)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != want || err != nil {
			t.Errorf("%q, %v; want %q", b, err, want)
		}
	}
	ask("ok")
	ask("ok")
	everything := requests()
	everything.Matches = []steer.Match{{Method: "*"}}
	p.steer(everything)
	ask("ada")
	p.steer()
	ask("ok")
}

// Who breaks off breaks the other one too, and it is told.
func TestPassedConnectionBreaks(t *testing.T) {
	broke := make(chan error, 1)
	p := newPod(t, serveTCP(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, len(corpus.Plain)))
		io.WriteString(c, answered)
		_, err := io.Copy(io.Discard, c)
		broke <- err
	}), requests())
	c := dial(t, p.listen(steer.TCP))
	io.WriteString(c, corpus.Plain)
	io.ReadFull(c, make([]byte, len(answered)))
	io.WriteString(c, corpus.Plain)
	c.SetLinger(0)
	c.Close()
	if err := <-broke; !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	p.until("broken", func(s steer.Seen) bool { return s.Rule == nil && errors.Is(s.Err, syscall.ECONNRESET) })
	if !eventually(func() bool { return p.Conns() == 0 }) {
		t.Errorf("%d connections are still counted", p.Conns())
	}
}
