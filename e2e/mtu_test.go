//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"podnet.dev/internal/measure"
)

// TestSmallPackets has a line that swallows packets above 1280 bytes and says
// nothing: from the start, and from the middle of a session on.
func TestSmallPackets(t *testing.T) {
	size := 20_000_000
	if long {
		size = 100_000_000
	}
	const still = 3 * time.Second
	limit := lasting(2*still, still)
	transfers := func(t *testing.T, what string) {
		t.Helper()
		out := alice.role("transfer", "http://"+podAddress(t, "app=web")+":8080", fmt.Sprint(size)).must(t)
		var went map[string]moved
		if err := json.Unmarshal([]byte(out), &went); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		c := alice.connection(t)
		for _, way := range []string{"down", "up"} {
			m := went[way]
			line := fmt.Sprintf("[39] outer path of 1280 bytes, %s, %s", what, way)
			report(t, line, fmt.Sprintf("%d MB, %s; tunnel MTU %d on %s", size/1_000_000, rate(size, m.Took), c.Tunnel.MTU, c.Path.Kind))
			measure.AtMost(t, line+": nothing moved for", m.Still, still)
			if m.Still > limit {
				t.Errorf("%s: nothing moved for %v, and %v are allowed", way, m.Still, limit)
			}
		}
		if c.Path.Kind != "udp" {
			t.Errorf("the path is %+v", c.Path)
		}
	}
	t.Run("from the start", func(t *testing.T) {
		calm(t)
		lab("wire", "laptop", "--mtu", "1280").must(t)
		alice.connect(t, "-n", "shop")
		alice.start(t, "watch").waitPath(t, "udp", time.Now(), 15*time.Second)
		transfers(t, "from the start")
	})
	t.Run("from the middle on", func(t *testing.T) {
		calm(t)
		alice.connect(t, "-n", "shop")
		alice.start(t, "watch").waitPath(t, "udp", time.Now(), 15*time.Second)
		session := alice.start(t, "echo", podAddress(t, "app=db")+":5432")
		lab("wire", "laptop", "--mtu", "1280").must(t)
		transfers(t, "from the middle on")
		session.stop()
		session.unbroken(t)
	})
}

// moved is how a transfer went: how long it took, and the longest time in which not a
// byte of it moved.
type moved struct{ Took, Still time.Duration }

// transfer URL SIZE has the shop there send so many bytes, and take as many, compares
// checksums, and prints how each went.
func transfer(ctx context.Context, args []string) error {
	size, went := int64(number(args[1])), map[string]moved{}
	for _, way := range []string{"down", "up"} {
		carry := receive
		if way == "up" {
			carry = send
		}
		limited, stop := context.WithTimeout(ctx, time.Minute)
		m, err := carry(limited, args[0], size)
		stop()
		if err != nil {
			return fmt.Errorf("%s, after %v, %v of them still: %w", way, m.Took, m.Still, err)
		}
		went[way] = m
	}
	return json.NewEncoder(os.Stdout).Encode(went)
}

func receive(ctx context.Context, shop string, size int64) (moved, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/blob?size=%d", shop, size), nil)
	if err != nil {
		return moved{}, err
	}
	r.Header.Set("TE", "trailers")
	began := time.Now()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return moved{}, err
	}
	defer resp.Body.Close()
	sum, body := sha256.New(), &pace{Reader: resp.Body, last: began}
	_, err = io.Copy(sum, body)
	if got := fmt.Sprintf("%x", sum.Sum(nil)); err == nil && got != resp.Trailer.Get("Sha256") {
		err = fmt.Errorf("checksum %s, want %s", got, resp.Trailer.Get("Sha256"))
	}
	return moved{time.Since(began), body.still}, err
}

func send(ctx context.Context, shop string, size int64) (moved, error) {
	sum, began := sha256.New(), time.Now()
	body := &pace{Reader: io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{}), size), sum), last: began}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, shop+"/sink", body)
	if err != nil {
		return moved{}, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return moved{time.Since(began), body.still}, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	body.step()
	if got, want := strings.TrimSpace(string(answer)), fmt.Sprintf("%d %x", size, sum.Sum(nil)); err == nil && got != want {
		err = errors.New("the shop got " + got + ", want " + want)
	}
	return moved{time.Since(began), body.still}, err
}

// pace is a reader that knows the longest time in which nobody has got a byte of it. Of
// one whose bytes are sent on that is when the line took none: what may wait for it is
// full in a moment.
type pace struct {
	io.Reader
	last  time.Time
	still time.Duration
}

func (p *pace) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.step()
	return n, err
}

func (p *pace) step() {
	now := time.Now()
	p.still, p.last = max(p.still, now.Sub(p.last)), now
}
