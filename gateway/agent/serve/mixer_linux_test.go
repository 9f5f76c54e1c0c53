package serve

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// mixed is what a mix comes to.
type mixed struct {
	Spoken  map[string]int // connections, by what they spoke
	Bytes   int64
	Entries int
	Pairs   map[string]int // see book
	Errors  []string
}

// mixers is how many clients there are at once.
const mixers = 32

// mix has clients move BYTES in all, over connections to the HOSTs that each speak
// another protocol, and tells what they have sent and got.
func mix(at []string) string {
	seed, _ := strconv.ParseUint(at[0], 10, 64)
	total, _ := strconv.ParseInt(at[1], 10, 64)
	var said book
	out := mixed{Spoken: map[string]int{}}
	var all sync.WaitGroup
	var mu sync.Mutex
	for i := range mixers {
		all.Go(func() {
			m := &mixer{Rand: rand.New(rand.NewPCG(seed, uint64(i))), book: &said, hosts: at[2:]}
			for n := i; m.moved.Load() < total/mixers+1; n++ {
				k := kinds[n%len(kinds)]
				err := k.speak(m)
				mu.Lock()
				out.Spoken[k.name]++
				if err != nil {
					out.Errors = append(out.Errors, fmt.Sprintf("%s: %v", k.name, err))
				}
				mu.Unlock()
				if err != nil {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			out.Bytes += m.moved.Load()
		})
	}
	all.Wait()
	out.Entries, out.Pairs = said.count, said.pairs
	b, err := json.Marshal(out)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// kinds are the protocols, each of which is a connection's.
var kinds = []struct {
	name  string
	speak func(*mixer) error
}{
	{"requests", (*mixer).requests},
	{"pipelines", (*mixer).pipelines},
	{"streams", (*mixer).streams},
	{"upgrades", (*mixer).upgrades},
	{"bytes", (*mixer).bytes},
	{"sealed", (*mixer).sealed},
	{"lines", (*mixer).lines},
}

// mixer is a client, who opens one connection after the other.
type mixer struct {
	*rand.Rand
	book  *book
	moved atomic.Int64
	hosts []string
}

func (m *mixer) dial(port int) (*tally, error) {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(m.hosts[m.IntN(len(m.hosts))], strconv.Itoa(port)), patience)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(mixPatience))
	t := m.book.tally(c, cuts(rand.New(rand.NewPCG(m.Uint64(), 0))), true, port == mixStreams)
	t.bytes = &m.moved
	return t, nil
}

// size is that of a body: nothing, a few bytes, or a mebibyte.
func (m *mixer) size() int64 {
	n := int64(1) << m.IntN(21)
	return m.Int64N(n) * int64(min(1, m.IntN(8)))
}

// request is one of any kind. The hash has its head, and gets its body as it is sent.
func (m *mixer) request(expect bool) (*http.Request, hash.Hash) {
	method := [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut}[m.IntN(4)]
	framing := [...]string{byLength, byChunks, byTrailer}[m.IntN(3)]
	if method == http.MethodHead {
		framing = byLength
	}
	r, err := http.NewRequest(method, fmt.Sprintf("http://app/%d/%d/%s", m.Uint64(), m.size(), framing), nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("X-User", "bob") // whom no rule is for
	r.Header.Set("X-Noise", noiseText(m.Uint64()))
	h := requestHash(r)
	if method == http.MethodGet || method == http.MethodHead {
		return r, h
	}
	r.ContentLength = m.size()
	r.Body = io.NopCloser(io.TeeReader(noise(m.Uint64(), r.ContentLength), h))
	switch m.IntN(3) {
	case 0:
		r.ContentLength = -1
	case 1:
		r.ContentLength = -1
		r.Trailer = http.Header{"X-Sum": {noiseSum(m.Uint64())}}
	}
	if expect && r.ContentLength != 0 && m.IntN(8) == 0 {
		r.Header.Set("Expect", "100-continue")
	}
	return r, h
}

// transport speaks HTTP on a connection, and on no other one.
func transport(c net.Conn, protocols *http.Protocols) *http.Transport {
	var used atomic.Bool
	return &http.Transport{
		Protocols: protocols, DisableCompression: true, ExpectContinueTimeout: mixPatience,
		MaxConnsPerHost: 1, // or requests that come at once connect at once
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the connection has ended early")
			}
			return c, nil
		},
	}
}

// roundTrip makes a request and hears its answer out.
func roundTrip(t http.RoundTripper, r *http.Request) (hash.Hash, error) {
	resp, err := t.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return hearOut(resp)
}

func hearOut(resp *http.Response) (hash.Hash, error) {
	defer resp.Body.Close()
	h := sha256.New()
	io.WriteString(h, resp.Header.Get("X-Noise"))
	if _, err := io.Copy(h, resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answer %s", resp.Status)
	}
	io.WriteString(h, resp.Trailer.Get("X-Sum"))
	return h, nil
}

// requests makes one request after the other.
func (m *mixer) requests() error {
	c, err := m.dial(mixWeb)
	if err != nil {
		return err
	}
	defer c.Close()
	t := transport(c, nil)
	defer t.CloseIdleConnections()
	for range 1 + m.IntN(16) {
		r, _ := m.request(true)
		if _, err := roundTrip(t, r); err != nil {
			return err
		}
	}
	return nil
}

// pipelines makes requests without waiting for an answer.
func (m *mixer) pipelines() error {
	c, err := m.dial(mixWeb)
	if err != nil {
		return err
	}
	defer c.Close()
	var all []*http.Request
	for range 1 + m.IntN(16) {
		r, _ := m.request(false)
		all = append(all, r)
	}
	var asking errgroup.Group
	asking.Go(func() error {
		for _, r := range all {
			if err := r.Write(c); err != nil {
				return err
			}
		}
		return nil
	})
	answers := bufio.NewReader(c)
	for _, r := range all {
		resp, err := http.ReadResponse(answers, r)
		if err == nil {
			_, err = hearOut(resp)
		}
		if err != nil {
			c.Close()
			return errors.Join(err, asking.Wait())
		}
	}
	return asking.Wait()
}

// streams makes requests of HTTP/2, all at once. They are entered one by one, as
// somebody between may frame them anew.
func (m *mixer) streams() error {
	c, err := m.dial(mixStreams)
	if err != nil {
		return err
	}
	defer c.Close()
	t := transport(c, onlyHTTP2())
	defer t.CloseIdleConnections()
	var asking errgroup.Group
	for range 1 + m.IntN(16) {
		r, up := m.request(false)
		asking.Go(func() error {
			down, err := roundTrip(t, r)
			if err != nil {
				return err
			}
			io.WriteString(up, r.Trailer.Get("X-Sum"))
			m.book.enter(up, down)
			return nil
		})
	}
	return asking.Wait()
}

// upgrades turns HTTP/1.1 into a connection of bytes.
func (m *mixer) upgrades() error {
	c, err := m.dial(mixWeb)
	if err != nil {
		return err
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\nX-User: bob\r\nConnection: Upgrade\r\nUpgrade: mix\r\n\r\n")
	answers := bufio.NewReader(c)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("answer %s", resp.Status)
	}
	return m.talk(c, answers)
}

// talk makes a plan and does the client's part of it.
func (m *mixer) talk(c halfCloser, r io.Reader) error {
	p := plan{turn(m.IntN(3)), m.Uint64(), m.size(), m.size()}
	if err := binary.Write(c, binary.BigEndian, p); err != nil {
		return err
	}
	return converse(c, r, noise(p.Seed, p.Up), p.Turn)
}

func (m *mixer) bytes() error {
	c, err := m.dial(mixBytes)
	if err != nil {
		return err
	}
	defer c.Close()
	return m.talk(c, c)
}

func (m *mixer) sealed() error {
	c, err := m.dial(mixSealed)
	if err != nil {
		return err
	}
	defer c.Close()
	sealed := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // it is the agent that is tested
	return m.talk(sealed, sealed)
}

// lines waits to be greeted, as clients of mail servers and databases do.
func (m *mixer) lines() error {
	c, err := m.dial(mixLines)
	if err != nil {
		return err
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	expect := func(code string) error {
		line, err := answers.ReadString('\n')
		if err == nil && !strings.HasPrefix(line, code) {
			err = fmt.Errorf("%.40q, want %s", line, code)
		}
		return err
	}
	if err := expect("220"); err != nil {
		return err
	}
	for range m.IntN(40) {
		fmt.Fprintf(c, "%d %d\r\n", m.Uint64(), m.size()/8)
		if err := expect("250"); err != nil {
			return err
		}
	}
	io.WriteString(c, "QUIT\r\n")
	if err := expect("221"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answers)
	return err
}
