//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledAtRandom kills all of podnet on the laptop at once, the guard that
// would clean up included, in the middle of whatever it does. A cleanup or the
// next start, which may be killed as well, gives the laptop back as it was.
func TestKilledAtRandom(t *testing.T) { killedAtRandom(t) }

// killedAtRandom tells that story in the lab that is up. Scripts in settings
// print what more there is of a laptop's state than a snapshot has.
func killedAtRandom(t *testing.T, settings ...string) {
	t.Helper()
	rounds := 20
	if long {
		rounds = 100
	}
	random := seeded(t)
	before := alice.snapshot(t, settings...)
	t.Cleanup(func() {
		alice.podnet("disconnect", "--all").try(t)
		// Who is killed says no goodbye in the cluster.
		kubectl("delete", "peers,accesses", "-A", "--all").try(t)
	})
	connect := alice.podnet("connect", "--wait", "-n", "shop")
	disconnect := alice.podnet("disconnect", "--all")
	joining, leaving := took(t, connect), took(t, disconnect)

	dirty := 0 // how often the laptop was not as before
	for round := range rounds {
		var what string
		var victim *command
		var usual time.Duration // how long what is interrupted takes
		switch round % 3 {
		case 0:
			what, victim, usual = "connecting", &connect, joining
		case 1:
			connect.must(t)
			what, usual = "connected", 500*time.Millisecond
		case 2:
			connect.must(t)
			what, victim, usual = "disconnecting", &disconnect, leaving
		}
		at := time.Duration(random.Int64N(int64(usual)))
		dead := alice.die(t, random, at, victim)
		if same(before, alice.snapshot(t, settings...)) != nil {
			dirty++
		}
		how := [...]string{"cleanup", "disconnect", "the next start", "none yet"}[random.IntN(4)]
		if round == rounds-1 {
			how = "the next start"
		}
		t.Logf("%s, killed after %v: %s; then %s", what, at.Round(time.Millisecond), strings.Join(dead, ", "), how)
		switch how {
		case "cleanup":
			alice.podnet("cleanup").must(t)
		case "disconnect":
			disconnect.must(t)
		case "the next start":
			connect.must(t)
			alice.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t)
			disconnect.must(t)
		default:
			continue
		}
		eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t, settings...)) })
	}
	report(t, "[25] kill -9 at random moments: the laptop as it was", fmt.Sprintf("%d kills, %d of them left something to undo", rounds, dirty))
	if dirty == 0 {
		t.Error("no kill left anything: the snapshot looks in the wrong place")
	}
}

// twoKilledAtRandom is killedAtRandom with two clusters joined, of which one is being
// joined, left, or made primary.
func twoKilledAtRandom(t *testing.T, settings ...string) {
	t.Helper()
	rounds := 4
	if long {
		rounds = 40
	}
	random := seeded(t)
	before := alice.snapshot(t, settings...)
	t.Cleanup(func() { alice.podnet("disconnect", "--all").try(t) })
	lab, blue := alice.podnet("connect", "--wait", "-n", "shop"), alice.podnet("connect", "--wait", "--context", "blue", "-n", "shop")
	primary, leave := alice.podnet("primary", "blue"), alice.podnet("disconnect", "blue")
	doings := []*command{nil, &blue, &primary, &leave}
	for round := range rounds {
		doing := doings[round%len(doings)]
		lab.must(t)
		if doing != &blue {
			blue.must(t)
		}
		at := time.Duration(random.Int64N(int64(500 * time.Millisecond)))
		dead := alice.die(t, random, at, doing)
		how := [...]command{alice.podnet("cleanup"), alice.podnet("disconnect", "--all"), blue}[random.IntN(3)]
		t.Logf("killed after %v: %s; then %s", at.Round(time.Millisecond), strings.Join(dead, ", "), how)
		how.must(t)
		alice.podnet("disconnect", "--all").must(t)
		eventually(t, 5*time.Second, "laptop as before", func() error { return same(before, alice.snapshot(t, settings...)) })
	}
	report(t, "kill -9 with two clusters joined: the laptop as it was", fmt.Sprintf("%d kills", rounds))
}

// seeded is chance that can be had again.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("PODNET_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("PODNET_E2E_SEED: %v", err)
		}
	}
	t.Logf("the same again: PODNET_E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func took(t testing.TB, c command) time.Duration {
	t.Helper()
	start := time.Now()
	c.must(t)
	return time.Since(start)
}

// die kills every process of podnet on the machine, in any order, some time
// after a victim has begun to run, and names them: "podnet daemon".
func (m machine) die(t testing.TB, random *rand.Rand, after time.Duration, victim *command) (dead []string) {
	t.Helper()
	var run *exec.Cmd
	if victim != nil {
		run = victim.exec(context.Background())
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(after)
	if run != nil {
		_ = run.Process.Kill() // it may not have become podnet yet
		dead = append(dead, "podnet "+strings.Fields(victim.shown)[1])
	}
	var killed []int
	for {
		pids := m.podnets(t)
		if len(pids) == 0 {
			break
		}
		random.Shuffle(len(pids), func(i, j int) { pids[i], pids[j] = pids[j], pids[i] })
		for _, pid := range pids {
			name := podnetArgs(pid)
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				dead, killed = append(dead, name), append(killed, pid)
			}
		}
	}
	for _, pid := range killed {
		eventually(t, 5*time.Second, "the end of a process that was killed", func() error { return ended(pid) })
	}
	if run != nil {
		var exit *exec.ExitError
		if err := run.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return dead
}

// ended is nil when nothing of a process is open any more. One that is on its way out
// has no program to be seen by, and still listens; so does one whose first thread is a
// zombie and whose others are not through yet.
func ended(pid int) error {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	_, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil || len(threads) <= 1 && (state[0] == 'Z' || state[0] == 'X') {
		return nil
	}
	return fmt.Errorf("%d is in state %c with %d threads", pid, state[0], len(threads))
}

// podnetArgs is a process of podnet in words: "podnet daemon".
func podnetArgs(pid int) string {
	args, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	words := strings.Split(string(args), "\x00")
	return "podnet " + strings.Join(words[1:min(2, len(words))], "")
}

// podnets are the machine's processes of podnet.
func (m machine) podnets(t testing.TB) []int {
	t.Helper()
	var own, its syscall.Stat_t
	if err := syscall.Stat("/run/netns/podnet-lab-"+m.name, &own); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, link := range programs {
		exe, err := os.Readlink(link) // of a process that has ended there is none
		if err != nil || filepath.Base(exe) != "podnet" {
			continue
		}
		if syscall.Stat(filepath.Join(filepath.Dir(link), "ns/net"), &its) != nil || its.Ino != own.Ino {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
