package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"podnet.dev/internal/measure"
)

// TestPowerCut cuts the power while the user connects, is connected, or disconnects.
// The laptop boots, and finds names.
//
// Its /etc and podnet's notes are on two disks, each with a file system of its own, so
// that neither saves what the other one has forgotten to.
func TestPowerCut(t *testing.T) {
	h := newLaptop(t)
	rounds := 12
	if os.Getenv("PODNET_E2E_LONG") != "" {
		rounds = 50
	}
	random := seeded(t)
	disks := h.disks("/etc", h.State)
	disks.mount()
	h.run("sh", "-c", "printf 'nameserver 192.0.2.53\nsearch home.example\n' > /etc/resolv.conf; echo 'hosts: files dns' > /etc/nsswitch.conf; ip addr add 192.0.2.53/32 dev lo; sync -f /etc")
	before := h.Snapshot()
	h.finds("example.org")
	noted, slowest := 0, time.Duration(0)
	for round := range rounds {
		helper := h.helper()
		// What nobody asked to have on the disk is not to be seen again: else this is no
		// power cut.
		unsaved := h.Path(filepath.Join(h.State, "unsaved"))
		if err := os.WriteFile(unsaved, []byte("a word"), 0o600); err != nil {
			t.Fatal(err)
		}
		u := h.start("user", strconv.Itoa(operator))
		when := [...]string{"connecting", "connected", "disconnecting"}[round%3]
		if when != "connecting" {
			u.says("connected podnet0")
		}
		if when == "disconnecting" {
			_ = u.in.Close()
		}
		at := time.Duration(random.Int64N(int64(100 * time.Millisecond)))
		time.Sleep(at)
		disks.cut(random)
		u.kill()
		helper.kill()
		h.KillAll()
		disks.unmount()

		began := time.Now()
		disks.mount()
		h.run("sh", "-c", "rm -rf /run/*")
		notes, err := filepath.Glob(h.Path(filepath.Join(h.State, "*.json")))
		if err != nil {
			t.Fatal(err)
		}
		if len(notes) > 0 { // what podnet-helper-cleanup.service asks for
			noted++
			if out, err := h.runs("helper", "cleanup", "-state", h.State).CombinedOutput(); err != nil {
				t.Errorf("podnet-helper cleanup: %v: %s", err, out)
			}
		}
		h.finds("example.org")
		took := time.Since(began)
		slowest = max(slowest, took)
		t.Logf("%s, after %v: %d notes, names after %v", when, at.Round(time.Millisecond), len(notes), took.Round(time.Millisecond))
		if b, _ := os.ReadFile(unsaved); len(b) > 0 {
			t.Error("nothing was lost")
		}
		_ = os.Remove(unsaved)
		h.Becomes(before, time.Second)
		if t.Failed() {
			t.FailNow()
		}
	}
	measure.AtMost(t, fmt.Sprintf("[26] %d power cuts, %d of them with something to take back: the slowest of the boots to a name", rounds, noted), slowest, 10*time.Second)
	if noted == 0 || slowest > 10*time.Second {
		t.Errorf("of %d power cuts %d mattered; a name was found after %v", rounds, noted, slowest)
	}
}

// finds asks for a name as programs do, until there is an answer.
func (h *laptop) finds(name string) {
	h.t.Helper()
	h.start("names").says("ready")
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		out, err := h.Command("getent", "hosts", name).CombinedOutput()
		if err == nil && strings.HasPrefix(string(out), "192.0.2.80 ") {
			return
		}
		if time.Since(began) > 20*time.Second {
			h.t.Fatalf("getent hosts %s: %v: %s", name, err, out)
		}
	}
}

// names answers all questions for an IPv4 address, at the laptop's usual resolver.
func names() error {
	c, err := net.ListenPacket("udp", "192.0.2.53:53")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for b := make([]byte, 512); ; {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}},
			}}
		}
		answer, err := m.Pack()
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(answer, from); err != nil {
			return err
		}
	}
}

// disks are a laptop's, each mounted at a place of its own.
type disks struct {
	h  *laptop
	at map[string]string // the image, by the place
}

// disks makes them and mounts none.
func (h *laptop) disks(places ...string) disks {
	h.t.Helper()
	if out, err := exec.Command("losetup", "--find").CombinedOutput(); err != nil {
		h.t.Skipf("needs loop devices: %v: %s", err, out)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		h.t.Skip("needs mkfs.ext4")
	}
	d := disks{h, map[string]string{}}
	for i, place := range places {
		image := filepath.Join(h.t.TempDir(), fmt.Sprintf("disk%d", i))
		h.run("truncate", "--size", "16M", image)
		h.run("mkfs.ext4", "-q", image)
		h.run("mkdir", "-p", place)
		d.at[place] = image
	}
	return d
}

// mount has the file systems mend themselves, as at a boot.
func (d disks) mount() {
	d.h.t.Helper()
	for place, image := range d.at {
		d.h.run("mount", "-o", "loop", image, place)
	}
}

// unmount is of disks that are cut off, or nothing is lost.
func (d disks) unmount() {
	d.h.t.Helper()
	for place := range d.at {
		eventually(d.h.t, "umount "+place, func() bool { return d.h.Command("umount", place).Run() == nil }) // it is in use for another moment
	}
}

// Of linux/fs/ext4/ext4.h, for tests such as this one: the file system writes nothing
// any more, neither what waits nor its journal.
const (
	ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	noLogFlush   = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
)

// cut cuts the disks off, in either order.
func (d disks) cut(random *rand.Rand) {
	d.h.t.Helper()
	var open []*os.File
	for place := range d.at {
		f, err := os.Open(d.h.Path(place))
		if err != nil {
			d.h.t.Fatal(err)
		}
		defer f.Close()
		open = append(open, f)
	}
	random.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	for _, f := range open {
		if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
			d.h.t.Fatalf("shut %s down: %v", f.Name(), err)
		}
	}
}
