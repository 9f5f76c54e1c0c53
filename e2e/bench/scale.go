package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/key"
)

// How many flows and peers a gateway is given. With a thousand peers it is as full as
// an installation lets it become.
var (
	flowSteps = []int{0, 1000, 2000, 5000, 10000, 20000}
	peerSteps = []int{1, 10, 50, 100, 200, 1000}
)

const (
	// filesReserve are files that a process has beside those of flows.
	filesReserve = 100
	// scaleMemory is Go's limit, as podnet install has it for a pod of 512 MiB.
	scaleMemory = "GOMEMLIMIT=460MiB"
	// quiet is how long is looked at what a gateway computes while nobody says anything.
	quiet = 5 * time.Second
)

// scalePoint is what a gateway costs with so many.
type scalePoint struct {
	Of string `json:"of"` // flows or peers
	N  int    `json:"n"`
	// Took is until all were there, in s, and CPU what the gateway computed for it.
	Took float64 `json:"took"`
	CPU  float64 `json:"cpu"`
	// Resident is the memory then, in MB: the process's own, without its program.
	Resident float64 `json:"resident"`
	// Heap and Stacks are what of it is in use after a collection, and Goroutines
	// how many there are.
	Heap       float64 `json:"heap"`
	Stacks     float64 `json:"stacks"`
	Goroutines int     `json:"goroutines"`
	// Idle is the share of a core that it computes while nobody says anything, P50
	// and P99 are the round trip beside them, in us.
	Idle float64 `json:"idle"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
}

// alive is what the gateway says of itself.
type alive struct {
	Heap, Stacks uint64
	Goroutines   int
}

// scale measures what a gateway costs by how many flows and peers it has, up to
// where it gives in, and reports it.
func scale(ctx context.Context, o options, out io.Writer) error {
	flows, err := allowFiles(flowSteps)
	if err != nil {
		return err
	}
	var points []scalePoint
	peers := peerSteps
	if o.quick {
		flows, peers = flows[:4], peers[:4]
	}
	fmt.Fprintln(os.Stderr, "bench: scale, flows ...")
	if err := scaleFlows(ctx, flows, &points); err != nil {
		return fmt.Errorf("flows: %w", err)
	}
	for _, n := range peers {
		fmt.Fprintf(os.Stderr, "bench: scale, %d peers ...\n", n)
		if err := scalePeers(ctx, n, &points); err != nil {
			return fmt.Errorf("%d peers: %w", n, err)
		}
	}
	reportScale(out, points)
	if o.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(points, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(b, '\n'), 0o644)
}

// allowFiles lets processes have a file for each flow of the largest step, or, where
// they may not, makes the steps smaller.
func allowFiles(steps []int) ([]int, error) {
	want := uint64(slices.Max(steps) + filesReserve)
	limit := unix.Rlimit{Cur: want, Max: want}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		return steps, nil
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("allow %d files: %w", limit.Max, err)
	}
	var fewer []int
	for _, n := range steps {
		fewer = append(fewer, min(n, int(limit.Max)-filesReserve))
	}
	return slices.Compact(fewer), nil
}

// reportScale prints a table for flows and one for peers. What one more costs is the
// difference to the line above.
func reportScale(out io.Writer, points []scalePoint) {
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	var last scalePoint
	for _, p := range points {
		if p.Of != last.Of {
			fmt.Fprintf(t, "\n%s\ts until there\tCPU ms each\tresident MB\tKB each more\tin use: heap MB\tstacks MB\tKB each more\tgoroutines\tidle, cores\tround trip p50 us\tp99\t\n", p.Of)
			last = p
		}
		each := func(now, before float64) string {
			if p.N == last.N {
				return ""
			}
			return fmt.Sprintf("%.1f", (now-before)/float64(p.N-last.N)*1024)
		}
		fmt.Fprintf(t, "%d\t%.1f\t%.2f\t%.0f\t%s\t%.1f\t%.1f\t%s\t%d\t%.3f\t%.0f\t%.0f\t\n", p.N, p.Took, p.CPU*1000/float64(max(p.N-last.N, 1)), p.Resident, each(p.Resident, last.Resident),
			p.Heap, p.Stacks, each(p.Heap+p.Stacks, last.Heap+last.Stacks), p.Goroutines, p.Idle, p.P50, p.P99)
		last = p
	}
}

// scaled is a gateway that can be asked about itself, and who uses it.
type scaled struct {
	*world
	gateway *asked
	laptop  *asked
}

// scaleFlows gives one gateway more and more flows of one laptop.
func scaleFlows(ctx context.Context, steps []int, points *[]scalePoint) error {
	s, err := newScaled(ctx, 0)
	if err != nil {
		return err
	}
	defer s.destroy()
	if s.laptop, err = s.ask(s.inside(ctx, s.world.laptop, "worker", "hold", echoAddr)); err != nil {
		return err
	}
	for _, n := range steps {
		p, err := s.point(ctx, "flows", n)
		if err != nil {
			return err
		}
		*points = append(*points, p)
	}
	return nil
}

// scalePeers gives a new gateway peers that keep their ways open and say nothing else.
func scalePeers(ctx context.Context, n int, points *[]scalePoint) error {
	s, err := newScaled(ctx, n)
	if err != nil {
		return err
	}
	defer s.destroy()
	p, err := s.point(ctx, "peers", n)
	*points = append(*points, p)
	return err
}

// newScaled starts a gateway for one laptop with a TUN and others that there are only
// for the gateway.
func newScaled(ctx context.Context, others int) (*scaled, error) {
	w, err := namespaces(ctx, "pass")
	if err != nil {
		return nil, err
	}
	s := &scaled{world: w}
	if err := s.begin(ctx, others); err != nil {
		w.destroy()
		return nil, err
	}
	return s, nil
}

func (s *scaled) begin(ctx context.Context, others int) error {
	private, err := key.NewPrivate()
	if err != nil {
		return err
	}
	laptop, err := key.NewPrivate()
	if err != nil {
		return err
	}
	peer := func(k key.Public, at string) string {
		return fmt.Sprintf("[Peer]\nPublicKey = %s\nAllowedIPs = %s/32\n", k, at)
	}
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\nAddress = %s/32\n", base64Key(private), wgPort, gatewayTunnel) + peer(laptop.Public(), laptopTunnel.String())
	crowd := []string{private.Public().String()}
	at := netip.MustParseAddr("10.100.0.0")
	for range others {
		k, err := key.NewPrivate()
		if err != nil {
			return err
		}
		at = at.Next()
		conf += peer(k.Public(), at.String())
		crowd = append(crowd, k.Base64())
	}
	file := filepath.Join(s.dir, "gateway.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil { // uid 65534 reads it; the keys live a minute
		return err
	}
	if _, err := s.start(s.inside(ctx, s.pod, "worker", "serve", echoAddr), ""); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ip", append(s.unprivileged(), self, "worker", "scale-gateway", file)...)
	cmd.Env = append(os.Environ(), scaleMemory)
	if s.gateway, err = s.ask(cmd); err != nil {
		return err
	}
	s.gw = cmd
	own := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = 51821\n[Peer]\nPublicKey = %s\nEndpoint = 192.168.77.1:%d\nAllowedIPs = 10.96.0.0/24\n", base64Key(laptop), private.Public(), wgPort)
	if _, err := s.start(s.inside(ctx, s.world.laptop, "worker", "podnet-tun"), own); err != nil {
		return err
	}
	if err := s.tunUp(s.world.laptop, laptopTunnel, "10.96.0.0/24"); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil || others == 0 {
		return err
	}
	s.laptop, err = s.ask(s.inside(ctx, s.world.laptop, "worker", "crowd", fmt.Sprintf("192.168.77.1:%d", wgPort)))
	if err != nil {
		return err
	}
	return s.laptop.say(strings.Join(crowd, ","))
}

// point has whoever uses the gateway be n, and looks at it.
func (s *scaled) point(ctx context.Context, of string, n int) (p scalePoint, err error) {
	p = scalePoint{Of: of, N: n}
	cpu, began := s.cpu(), time.Now()
	if err := s.laptop.tell(n, &struct{}{}); err != nil {
		return p, err
	}
	p.Took, p.CPU, p.Resident = time.Since(began).Seconds(), s.cpu()-cpu, s.memory("RssAnon")
	var rr rrResult
	if err := s.client(ctx, &rr, "rr", echoAddr, "1s"); err != nil {
		return p, err
	}
	p.P50, p.P99 = rr.P50, rr.P99
	var a alive
	if err := s.gateway.tell(0, &a); err != nil {
		return p, err
	}
	p.Heap, p.Stacks, p.Goroutines = float64(a.Heap)/(1<<20), float64(a.Stacks)/(1<<20), a.Goroutines
	cpu = s.cpu()
	time.Sleep(quiet)
	p.Idle = (s.cpu() - cpu) / quiet.Seconds()
	return p, nil
}

// asked is a process that answers each line of its input with one of JSON.
type asked struct {
	in  io.Writer
	out *bufio.Reader
}

func (w *world) ask(cmd *exec.Cmd) (*asked, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	_, err = w.start(cmd, "")
	return &asked{in, bufio.NewReader(out)}, err
}

func (a *asked) say(line string) error {
	_, err := fmt.Fprintln(a.in, line)
	return err
}

// tell says n, and reads the answer.
func (a *asked) tell(n int, to any) error {
	if err := a.say(fmt.Sprint(n)); err != nil {
		return err
	}
	line, err := a.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("it has ended: %w", err)
	}
	return json.Unmarshal(line, to)
}
