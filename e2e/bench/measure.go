package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"podnet.dev/internal/key"
)

// flow is one throughput figure.
type flow struct {
	gbps float64
	cpu  float64 // seconds of the gateway per Gbit
}

// measure is one round of one system on one kind of link.
func measure(ctx context.Context, o options, mode, system string) (result, error) {
	w, err := build(ctx, o, mode, system)
	if err != nil {
		return nil, err
	}
	defer w.destroy()
	r := result{}
	time.Sleep(300 * time.Millisecond)
	if w.gw != nil {
		r["MemoryIdle"], r["MemoryOwn"] = w.memory("VmRSS"), w.memory("RssAnon")
	}
	var rr rrResult
	if o.wants("RTTP50", "RTTP99") {
		if err := w.client(ctx, &rr, "rr", echoAddr, o.short.String()); err != nil {
			return nil, err
		}
		r["RTTP50"], r["RTTP99"] = rr.P50, rr.P99
	}
	if o.wants("Connects", "ConnectsFailed") {
		var c struct {
			Rate   float64
			Failed int
		}
		if err := w.client(ctx, &c, "connects", echoAddr, o.short.String()); err != nil {
			return nil, err
		}
		r["Connects"], r["ConnectsFailed"] = c.Rate, float64(c.Failed)
	}
	if w.gw != nil && system != upstream && o.wants("MemoryFlow") { // upstream's gateway knows no flows
		if r["MemoryFlow"], err = w.idleFlows(ctx); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name string
		args []string
	}{
		{"Up1", nil}, {"Down1", []string{"-R"}}, {"Up8", []string{"-P", "8"}}, {"Down8", []string{"-R", "-P", "8"}},
	} {
		if !o.wants("TCP"+f.name, "CPU"+f.name) {
			continue
		}
		got, err := w.iperf(ctx, o.per, f.args...)
		if err != nil {
			return nil, err
		}
		r["TCP"+f.name] = got.gbps
		if w.gw != nil && len(f.args) > 1 {
			r["CPU"+f.name] = got.cpu
		}
	}
	for _, f := range []struct {
		name string
		args []string
	}{{"Up8", []string{"-P", "8"}}, {"Down8", []string{"-R", "-P", "8"}}} {
		if !o.wants("RTTP50"+f.name, "RTTP99"+f.name) {
			continue
		}
		if err := w.underLoad(ctx, o, &rr, f.args...); err != nil {
			return nil, err
		}
		r["RTTP50"+f.name], r["RTTP99"+f.name] = rr.P50/1000, rr.P99/1000
	}
	for _, way := range []string{"Up", "Down"} {
		if !o.udp || !o.wants("UDP"+way) {
			continue
		}
		var u struct{ Rate float64 }
		if err := w.client(ctx, &u, "udp", udpAddr, strings.ToLower(way)); err != nil {
			return nil, err
		}
		r["UDP"+way] = u.Rate
	}
	if w.gw != nil {
		r["MemoryAfter"], r["MemoryPeak"] = w.memory("VmRSS"), w.memory("VmHWM")
	}
	return r, nil
}

// client runs a load on the laptop and decodes what it prints.
func (w *world) client(ctx context.Context, to any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	cmd := w.inside(ctx, w.laptop, append([]string{"worker"}, args...)...)
	cmd.Stderr = os.Stderr
	if args[0] == "rr" && args[2] == "100ms" {
		cmd.Stderr = nil // still starting
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return json.Unmarshal(out, to)
}

// iperf is iperfOnce, tried again for 10 s while the server still ends the test
// before.
func (w *world) iperf(ctx context.Context, d time.Duration, args ...string) (flow, error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		f, err := w.iperfOnce(ctx, d, args...)
		if err == nil || !strings.Contains(err.Error(), "busy") || time.Now().After(deadline) {
			return f, err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (w *world) iperfOnce(ctx context.Context, d time.Duration, args ...string) (flow, error) {
	ctx, cancel := context.WithTimeout(ctx, d+15*time.Second)
	defer cancel()
	cpu := w.cpu()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", w.laptop, "iperf3", "-J", "-c", podIP,
		"-t", strconv.FormatFloat(d.Seconds(), 'f', 1, 64)}, args...)...)
	out, err := cmd.Output()
	var j struct {
		End struct {
			Received struct {
				Bits  float64 `json:"bits_per_second"`
				Bytes float64
			} `json:"sum_received"`
		}
		Error string
	}
	if json.Unmarshal(out, &j); j.Error != "" || err != nil {
		return flow{}, fmt.Errorf("iperf3: %v %s", err, j.Error)
	}
	used := w.cpu() - cpu
	return flow{j.End.Received.Bits / 1e9, used / (j.End.Received.Bytes * 8 / 1e9)}, nil
}

func (w *world) underLoad(ctx context.Context, o options, to *rrResult, args ...string) error {
	done := make(chan error, 1)
	go func() {
		_, err := w.iperf(ctx, o.short+time.Second, args...)
		done <- err
	}()
	time.Sleep(500 * time.Millisecond)
	err := w.client(ctx, to, "rr", echoAddr, o.short.String())
	if e := <-done; err == nil {
		err = e
	}
	return err
}

// idleFlows is what a connection that does nothing costs the gateway, in KB.
func (w *world) idleFlows(ctx context.Context) (float64, error) {
	const flows = 1000
	before := w.memory("VmRSS")
	done := make(chan error, 1)
	go func() { done <- w.client(ctx, &struct{}{}, "idle", echoAddr, strconv.Itoa(flows)) }()
	most := before
	for {
		select {
		case err := <-done:
			return (most - before) * 1024 / flows, err
		case <-time.After(50 * time.Millisecond):
			most = max(most, w.memory("VmRSS"))
		}
	}
}

// memory reads a figure of the gateway in MB. The gateway's process is the one
// that was started: ip and setpriv replace themselves.
func (w *world) memory(field string) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.gw.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	return 0
}

// cpu is how many seconds the gateway has computed, in user and kernel. What
// the kernel does for it in softirq is not charged to anybody.
func (w *world) cpu() float64 {
	if w.gw == nil {
		return 0
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.gw.Process.Pid))
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100 // USER_HZ
}

func base64Key(k key.Private) string {
	b, _ := hex.DecodeString(k.Hex())
	return base64.StdEncoding.EncodeToString(b)
}
