package crowd

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"podnet.dev/client"
	"podnet.dev/client/netwatch"
	"podnet.dev/internal/transport"
)

// deed is something a laptop does in a visit.
type deed struct {
	name string
	// often is its weight among the others.
	often int
	// limit is when a laptop that still is at it counts as stuck.
	limit time.Duration
	on    string // the values of --path with which it makes sense
	do    func(*visit, context.Context) error
}

// The limits are several times what docs/protocol.md promises: fifty laptops
// and a Kubernetes may share two cores. They tell the slow from the stuck.
const (
	calm   = 15 * time.Second  // one answer
	rough  = 20 * time.Second  // one answer after something broke
	choice = 60 * time.Second  // on the better path, once round trips have settled
	full   = 150 * time.Second // there, away from it and back
)

// The values of --path, in words.
const (
	anyPath = client.PathAuto + " " + client.PathUDP + " " + client.PathAPIServer
	withUDP = client.PathAuto + " " + client.PathUDP
	streams = client.PathAuto + " " + client.PathAPIServer
)

var deeds = []deed{
	{"download", 30, calm, anyPath, (*visit).download},
	{"upload", 20, calm, anyPath, (*visit).upload},
	{"echo", 30, calm, anyPath, (*visit).ping},
	{"echo across a NAT's rebinding", 8, rough, withUDP, func(v *visit, ctx context.Context) error { return v.across(v.wire.Rebind)(ctx) }},
	{"echo across a cut stream", 8, rough, streams, func(v *visit, ctx context.Context) error { return v.across(v.wire.Cut)(ctx) }},
	{"echo across a lost stream", 4, rough, streams, func(v *visit, ctx context.Context) error { return v.across(v.wire.Lose)(ctx) }},
	{"echo from another network", 6, rough, anyPath, func(v *visit, ctx context.Context) error { return v.across(v.move)(ctx) }},
	{"echo after a sleep", 4, rough, anyPath, func(v *visit, ctx context.Context) error { return v.across(v.sleep)(ctx) }},
	{"UDP cut, and back", 6, full, client.PathAuto, (*visit).outage},
}

// deed does one of them.
func (v *visit) deed(ctx context.Context) error {
	d := v.choose()
	return v.timed(ctx, d.name, d.limit, v.during(func(ctx context.Context) error { return d.do(v, ctx) }))
}

func (v *visit) choose() deed {
	var able []deed
	all := 0
	for _, d := range deeds {
		if strings.Contains(d.on, v.path) {
			able, all = append(able, d), all+d.often
		}
	}
	n := v.rand.IntN(all)
	for _, d := range able {
		if n -= d.often; n < 0 {
			return d
		}
	}
	panic("the weights do not add up")
}

// size of a transfer: mostly small, now and then a mebibyte.
func (v *visit) size() int64 { return 1 << (10 + v.rand.IntN(11)) }

func (v *visit) download(ctx context.Context) error {
	size := v.size()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/blob?size=%d", v.c.Shop, size), nil)
	if err != nil {
		return err
	}
	req.Header.Set("TE", "trailers")
	resp, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	if got, want := hex.EncodeToString(sum.Sum(nil)), resp.Trailer.Get("Sha256"); n != size || got != want {
		return fmt.Errorf("got %d bytes with checksum %s, want %d with %s", n, got, size, want)
	}
	return nil
}

func (v *visit) upload(ctx context.Context) error {
	size := v.size()
	var seed [32]byte
	seed[0] = byte(v.number)
	sum := sha256.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8(seed), size), sum)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.c.Shop+"/sink", body)
	if err != nil {
		return err
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if got, want := strings.TrimSpace(string(answer)), fmt.Sprintf("%d %x", size, sum.Sum(nil)); got != want {
		return fmt.Errorf("the other side got %q, want %q", got, want)
	}
	return nil
}

// ping sends a line on the connection that is open all the time, so that each
// of them proves that nothing since the first has broken it.
func (v *visit) ping(ctx context.Context) error {
	if v.echo == nil {
		c, err := v.host.Dial(ctx, "tcp", v.c.Echo)
		if err != nil {
			return err
		}
		v.echo, v.echoed = c, bufio.NewReader(c)
	}
	defer context.AfterFunc(ctx, func() { _ = v.echo.SetDeadline(time.Now()) })()
	line := fmt.Sprintf("laptop %d says %x\n", v.number, v.rand.Uint64())
	if _, err := io.WriteString(v.echo, line); err != nil {
		return errors.Join(err, ctx.Err())
	}
	got, err := v.echoed.ReadString('\n')
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	if got != line {
		return fmt.Errorf("echo of %q is %q", line, got)
	}
	return nil
}

// across breaks something and sends a line on a connection from before.
func (v *visit) across(breaks func()) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := v.ping(ctx); err != nil {
			return fmt.Errorf("before: %w", err)
		}
		breaks()
		return v.ping(ctx)
	}
}

// move takes the laptop to another network: nothing from before works there,
// and the operating system says so.
func (v *visit) move() {
	v.wire.Rebind()
	v.wire.Lose()
	v.tell(netwatch.Event{Kind: netwatch.Changed, Text: "new: wlan0 192.0.2.7/24"})
}

// sleep is a lid that was closed for a moment.
func (v *visit) sleep() {
	v.wire.Rebind()
	v.wire.Cut()
	v.tell(netwatch.Event{Kind: netwatch.Woke, Text: "the machine slept", Away: 10 * time.Second})
}

// outage takes UDP away and gives it back. The session goes over to the API
// server, and comes back by itself.
func (v *visit) outage(ctx context.Context) error {
	onUDP := func(ctx context.Context) error { return v.until(ctx, transport.UDP) }
	if err := v.timed(ctx, "  on udp before", choice, onUDP); err != nil {
		return err
	}
	defer v.wire.Block(false)
	if err := v.timed(ctx, "  echo across the cut", rough, v.across(func() { v.wire.Block(true) })); err != nil {
		return err
	}
	if err := v.timed(ctx, "  on apiserver", rough, func(ctx context.Context) error { return v.until(ctx, transport.APIServer) }); err != nil {
		return err
	}
	v.wire.Block(false)
	if err := v.timed(ctx, "  on udp again", choice, onUDP); err != nil {
		return err
	}
	return v.ping(ctx)
}

// until waits for the session to use a path of a kind.
func (v *visit) until(ctx context.Context, kind transport.Kind) error {
	for {
		s, _ := v.session.Status()
		if s.Path.Kind == string(kind) {
			return nil
		}
		if !wait(ctx, 50*time.Millisecond) {
			return fmt.Errorf("the path is %q, not %s: %w", s.Path.Kind, kind, ctx.Err())
		}
	}
}
