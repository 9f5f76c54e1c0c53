package osdns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLook(t *testing.T) {
	dir := t.TempDir()
	opts := Options{ResolvConf: filepath.Join(dir, "resolv.conf"), NSSwitch: filepath.Join(dir, "nsswitch.conf")}
	if err := os.WriteFile(opts.NSSwitch, []byte("hosts: files dns\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for conf, want := range map[string]Looks{
		"nameserver 192.0.2.1\n":             {Mode: ModeDirect},
		"nameserver 127.0.0.53\n":            {Mode: ModeResolved},
		marker + "\nnameserver 198.18.0.4\n": {Mode: ModeDirect, Ours: true},
	} {
		if err := os.WriteFile(opts.ResolvConf, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Look(opts); got != want {
			t.Errorf("%q looks like %+v, want %+v", conf, got, want)
		}
	}
}
