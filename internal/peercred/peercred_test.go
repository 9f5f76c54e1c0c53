//go:build linux || darwin

package peercred

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOfOurselves(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	who, err := Of(far)
	if err != nil {
		t.Fatal(err)
	}
	if who.UID != os.Geteuid() || who.PID != 0 && who.PID != os.Getpid() || !slices.Contains(who.Groups, os.Getegid()) {
		t.Errorf("we are %+v", who)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if !slices.Contains(who.Groups, g) {
			t.Errorf("no group %d in %v", g, who.Groups)
		}
	}
	if _, err := Of(nil); err == nil {
		t.Error("nobody is at the end of no socket")
	}
}
