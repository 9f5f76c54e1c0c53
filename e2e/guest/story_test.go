package guest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"podnet.dev/e2e/guest"
	"podnet.dev/e2e/town"
	"podnet.dev/internal/measure"
)

// role makes the test binary one of the guest's programs.
const role = "PODNET_GUEST"

func TestMain(m *testing.M) {
	if who := os.Getenv(role); who != "" {
		inside(who)
		return
	}
	os.Exit(m.Run())
}

// limit is for the whole of a guest's life, on a machine that has much else to do.
const limit = 8 * time.Minute

// TestKernelWireGuard has Linux' own WireGuard and our gateway speak to each other:
// the device that podnet-helper makes for a session, and a plain one with the
// configuration of podnet export. The gateway, its Services and its name server are
// out here, in a town; the laptop is a virtual machine with Debian's kernel.
func TestKernelWireGuard(t *testing.T) {
	if testing.Short() {
		t.Skip("emulates a machine: 42 s on two processors")
	}
	kernel := guest.Need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if static, err := guest.Static(self); err != nil || !static {
		t.Skipf("this test's own program is the guest's, and needs libraries: CGO_ENABLED=0 makes one that does not (%v)", err)
	}
	dir := t.TempDir()
	helper := filepath.Join(dir, "podnet-helper")
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", helper, "podnet.dev/cmd/podnet-helper").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o, env := newOutside(t, town.New(t, slog.New(slog.DiscardHandler), podName))
	maps.Copy(env, map[string]string{role: "init"})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var console []string
	err = kernel.Run(ctx, dir, guest.Config{
		Init: self, Env: env, Files: map[string]string{helperFile: helper}, Modules: []string{"virtio_pci", "virtio_net", "wireguard"},
		Console: func(line string) { console = append(console, line) },
	})
	if err != nil {
		t.Error(err)
	}
	said := map[string]told{}
	for _, s := range o.told {
		said[s.Name] = s
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			switch s, ok := said[p.name]; {
			case !ok:
				t.Error("the guest did not come to it")
			case s.Error != "":
				t.Error(s.Error)
			default:
				t.Log(s.Text)
				if p.limit > 0 {
					measure.AtMost(t, p.promise, s.Took, p.limit)
				}
			}
		})
	}
	if left := o.town.Peers(); len(left) > killed+1 {
		t.Errorf("%d Peers are left", len(left))
	}
	if t.Failed() {
		for _, line := range console {
			t.Log(line)
		}
	}
}

// inside is what the guest's processes do.
func inside(who string) {
	a := &away{calls: guest.Gateway.String() + ":" + os.Getenv("CALLS"), streams: guest.Gateway.String() + ":" + os.Getenv("STREAMS")}
	var err error
	switch who {
	case "init":
		if err = guest.SetUp(); err == nil {
			err = tell(a)
		}
		if err != nil {
			fmt.Println("the guest failed:", err)
		}
		err = guest.PowerOff()
	case "laptop":
		err = laptop(a)
	case "carry":
		err = carry(os.Stdout)
	default:
		err = fmt.Errorf("nobody is %s", who)
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// tell goes through the parts of the story.
func tell(a *away) error {
	s := &scene{away: a}
	defer s.end()
	for _, p := range parts {
		begun := time.Now()
		text, err := p.play(s)
		one := told{Name: p.name, Text: fmt.Sprintf("%.0f ms. %s", float64(time.Since(begun).Microseconds())/1000, text), Took: s.took}
		if err != nil {
			one.Error = err.Error()
		}
		if err := a.post(context.Background(), "/told", one, nil); err != nil {
			return err
		}
	}
	return nil
}

// printing is a log on the console.
func printing(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
