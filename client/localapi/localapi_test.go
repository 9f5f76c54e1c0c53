package localapi

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestRuntimeDir(t *testing.T) {
	uid := os.Geteuid()
	own := t.TempDir()
	run := t.TempDir()
	mine := filepath.Join(run, "podnet-"+strconv.Itoa(uid))
	if err := os.Mkdir(mine, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		xdg, run string
		uid      int
		want     string
	}{
		"xdg":                  {own, run, uid, filepath.Join(own, "podnet")},
		"no xdg":               {"", run, uid, mine},
		"xdg of somebody else": {own, run, uid + 1, filepath.Join("/tmp", "podnet-"+strconv.Itoa(uid+1))},
		"nothing to write to":  {"", "/nonexistent", 12345, "/tmp/podnet-12345"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := runtimeDir(c.xdg, c.run, "/tmp", c.uid); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRootStaysOutOfOtherHomes(t *testing.T) {
	home := t.TempDir() // owned by us
	if got := stateDir("", home, "/fallback", os.Geteuid()+1); got != "/fallback" {
		t.Errorf("somebody else's home was used: %s", got)
	}
	if got, want := stateDir("", home, "/fallback", os.Geteuid()), filepath.Join(home, ".local/state/podnet"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMakePrivateDir(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a/b")
	for range 2 {
		if err := MakePrivateDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := MakePrivateDir(dir); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := MakePrivateDir(link); err == nil {
		t.Error("a symbolic link was accepted")
	}
}

func TestNoDaemon(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if !errors.Is(err, ErrNoDaemon) {
		t.Errorf("got %v, want ErrNoDaemon", err)
	}
}

func TestSameRequest(t *testing.T) {
	a := ConnectRequest{Namespaces: []string{"shop", "pay"}, Kube: Kube{Flags: map[string][]string{"context": {"kind"}}, Env: []string{"KUBECONFIG=/a", "TERM=x"}}}
	same := ConnectRequest{Namespaces: []string{"pay", "shop"}, Kube: Kube{Flags: map[string][]string{"context": {"kind"}}, Env: []string{"TERM=y", "KUBECONFIG=/a"}}}
	if !a.SameAs(same) {
		t.Error("order of namespaces and unrelated environment matter")
	}
	for name, o := range map[string]ConnectRequest{
		"namespaces": {Namespaces: []string{"shop"}, Kube: a.Kube},
		"context":    {Namespaces: a.Namespaces, Kube: Kube{Flags: map[string][]string{"context": {"other"}}, Env: a.Kube.Env}},
		"kubeconfig": {Namespaces: a.Namespaces, Kube: Kube{Flags: a.Kube.Flags, Env: []string{"KUBECONFIG=/b"}}},
		"path":       {Namespaces: a.Namespaces, Kube: a.Kube, Path: "udp"},
		"device":     {Namespaces: a.Namespaces, Kube: a.Kube, Device: DeviceKernel},
	} {
		if a.SameAs(o) {
			t.Errorf("%s does not matter", name)
		}
	}
	same.Device = "auto" // which is podnet's own
	if !a.SameAs(same) {
		t.Error("the device's default matters")
	}
}

func TestDevicesThatThereAre(t *testing.T) {
	for _, d := range append([]string{""}, Devices...) {
		r := ConnectRequest{Device: d}.WithDefaults()
		if err := r.Check(); err != nil {
			t.Errorf("%q: %v", d, err)
		}
	}
	for name, r := range map[string]ConnectRequest{
		"another":                  {Device: "quantum"},
		"a pod, and no gate to it": {Device: DeviceKernel, As: "deploy/web"},
	} {
		r = r.WithDefaults()
		var e *Error
		if err := r.Check(); !errors.As(err, &e) || e.Code != CodeUsage || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
