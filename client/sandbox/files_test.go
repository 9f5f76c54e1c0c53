package sandbox

import (
	"net/netip"
	"testing"
)

func TestFiles(t *testing.T) {
	if got, want := resolvConf(DNS, []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local"}),
		"search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.19.0.3\noptions ndots:5\n"; got != want {
		t.Errorf("%q", got)
	}
	if got, want := resolvConf(netip.MustParseAddr("fd00::1"), nil), "nameserver fd00::1\noptions ndots:5\n"; got != want {
		t.Errorf("%q", got)
	}
	for had, want := range map[string]string{
		"": "hosts: files dns\n",
		"passwd: files sss\nhosts:  files mymachines resolve [!UNAVAIL=return] dns # all\nnetworks: files": "passwd: files sss\nhosts: files dns\nnetworks: files\n",
		"#hosts: files\n hosts: a\nhosts: b\n": "#hosts: files\nhosts: files dns\n",
	} {
		if got := nsswitch(had); got != want {
			t.Errorf("%q becomes %q, want %q", had, got, want)
		}
	}
	if got := hostsFile("127.0.0.1 localhost"); got != "127.0.0.1 localhost\n198.19.0.2 host.podnet.internal\n" {
		t.Errorf("%q", got)
	}
	if (Exit{Code: 7}).Status() != 7 || (Exit{Code: -1, Signal: 9}).Status() != 137 {
		t.Error("exit status")
	}
}
