//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/tray"
)

// debianPackage is the package that make packages makes for this computer, of the
// programs that the tests use.
func debianPackage(t *testing.T, to string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "linux-"+runtime.GOARCH)
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"podnet", "podnet-helper", "podnet-tray"} {
		host("cp", filepath.Join(top, "bin", name), filepath.Join(bin, name)).must(t)
	}
	out := filepath.Join(to, "packages")
	host("go", "run", "./cmd/packages", "-bin", filepath.Dir(bin), "-out", out, "-targets", "linux/"+runtime.GOARCH, "-only", "deb").must(t)
	found, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages: %v, %v", found, err)
	}
	return found[0]
}

// show are properties of a unit, as systemd tells them.
func (s *system) show(t *testing.T, unit string, properties ...string) string {
	t.Helper()
	return strings.ReplaceAll(s.root().cmd("systemctl", "show", unit, "--property="+strings.Join(properties, ",")).must(t), "\n", " ")
}

// resolved puts systemd-resolved on the system, as its packages do, until takeOff.
func (s *system) resolved(t *testing.T) (takeOff func()) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(cache, "podnet-lab/resolved/*"))
	if err != nil || len(found) == 0 {
		t.Skipf("no systemd-resolved in the lab's cache: %v", err)
	}
	s.root().sh(`cp -a ` + found[len(found)-1] + `/. /
cd /etc
sed 's/^nameserver /DNS=/' resolv.conf >>systemd/resolved.conf
echo FallbackDNS= >>systemd/resolved.conf
mv resolv.conf resolv.conf.had
mv nsswitch.conf nsswitch.conf.had
sed 's/^hosts:.*/hosts: files resolve [!UNAVAIL=return] dns/' nsswitch.conf.had >nsswitch.conf
ln -s ../run/systemd/resolve/stub-resolv.conf resolv.conf
systemd-sysusers
systemctl daemon-reload
systemctl reload dbus.service
systemctl start systemd-resolved.service
resolvectl query --legend=no www.example.test`).must(t)
	return func() {
		s.root().sh("systemctl stop systemd-resolved.service; cd /etc; mv resolv.conf.had resolv.conf; mv nsswitch.conf.had nsswitch.conf").must(t)
	}
}

// helperPID is the process of podnet-helper.
func (s *system) helperPID(t *testing.T) string {
	t.Helper()
	pid := strings.TrimPrefix(s.show(t, "podnet-helper.service", "MainPID"), "MainPID=")
	if pid == "0" {
		t.Fatalf("podnet-helper does not run: %s", s.show(t, "podnet-helper.service", "ActiveState", "Result"))
	}
	return pid
}

// TestNewcomer walks through the README as somebody who has just installed Debian: the
// package, connect, the icon, exec, the dashboard; then through what happens to such
// a machine: the helper dies, the power fails, it is restarted, podnet is removed.
func TestNewcomer(t *testing.T) {
	calm(t)
	s := alice.system(t)
	began := time.Now()
	deb := debianPackage(t, s.shared)
	report(t, "the package made", time.Since(began).Round(100*time.Millisecond))
	root, user := s.root(), s.user(newcomer)
	s.login(t, newcomer)
	// state is all that a session may change, but for a daemon that runs.
	state := func(t *testing.T, more ...string) string {
		t.Helper()
		return strings.ReplaceAll(root.snapshot(t, more...), "podnet daemon runs\n", "")
	}
	bare, had := state(t), s.written(t)

	began = time.Now()
	root.cmd("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", deb).must(t)
	report(t, "apt install ./podnet.deb", time.Since(began).Round(100*time.Millisecond))
	if units := root.sh("systemctl is-enabled podnet-helper.socket podnet-helper-cleanup.service; systemctl is-active podnet-helper.socket podnet-helper.service").try(t).stdout; units != "enabled\nenabled\nactive\ninactive\n" {
		t.Errorf("after the install: %q", units)
	}
	user.cmd("man", "--where", "podnet-connect").must(t)
	before := state(t)
	clean := func(t *testing.T) time.Duration {
		t.Helper()
		return eventually(t, 5*time.Second, "the machine as before the session", func() error { return same(before, state(t)) })
	}
	curl := func(t *testing.T) {
		t.Helper()
		want(t, user.cmd("curl", "-sS", "--max-time", "10", "http://web.shop").must(t), "hello from web-")
	}
	connect := func(t *testing.T) {
		t.Helper()
		user.podnet("connect", "--wait", "-n", "shop").must(t)
		curl(t)
	}

	t.Run("walk", func(t *testing.T) {
		began := time.Now()
		connect(t)
		report(t, "a newcomer's first connect, the helper's start and a request included", time.Since(began).Round(10*time.Millisecond))
		if got := user.status(t); got.State != "Connected" || !got.Connections[0].DNS.Healthy || len(got.Warnings) > 0 {
			t.Errorf("status %+v", got)
		}
		// What the unit says holds for the process.
		confined := root.sh("cat /proc/" + s.helperPID(t) + "/status").must(t)
		// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN
		want(t, confined, "CapBnd:\t000000000000140b", "NoNewPrivs:\t1", "Seccomp:\t2")
		if r := s.user(guest).podnet("connect", "-n", "shop").mustFail(t); r.code != 7 || !strings.Contains(r.stderr, "no operator") {
			t.Errorf("somebody else's connect: exit status %d, %s", r.code, r.stderr)
		}
		s.user(guest).podnet("disconnect", "--all").try(t)

		r := user.podnet("exec", "-n", "shop", "--", "sh", "-c", "curl -sS --max-time 10 http://web.shop; id -un").try(t)
		if r.code != 0 || !strings.Contains(r.stdout, "hello from web-") || !strings.Contains(r.stdout, newcomer) {
			t.Errorf("exec: exit status %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		want(t, r.stderr, "mode       namespace")

		page := user.sh(`address=$(podnet ui) && curl -sS --max-time 10 --cookie-jar ~/jar "$address" >/dev/null && curl -sS --max-time 10 --cookie ~/jar "${address%/open/*}/"`).must(t)
		want(t, page, "<h1>Overview</h1>", "podnet-gateway-0")
		user.podnet("disconnect").must(t)
		clean(t)
	})

	t.Run("tray", func(t *testing.T) {
		d := root.as(newcomer).desktop(t)
		d.shows(t, 5*time.Second, "(Not connected)")
		d.icon(t, tray.IconOff)
		d.click(t, "Connect")
		d.shows(t, 30*time.Second, "(Connected to ")
		d.icon(t, tray.IconOn)
		curl(t)
		// The desktop's way to open a page is a program that notes it.
		root.sh(`printf '#!/bin/sh\necho "$1" >/tmp/opened\n' >/usr/local/bin/xdg-open; chmod 755 /usr/local/bin/xdg-open`).must(t)
		d.click(t, "Open documentation")
		eventually(t, 5*time.Second, "the documentation is opened", func() error {
			return root.sh(`page=$(cat /tmp/opened) && grep -q '<title>podnet</title>' "${page#file://}"`).run(t.Context())
		})
		root.cmd("rm", "/usr/local/bin/xdg-open").must(t)
		d.click(t, "Disconnect")
		d.shows(t, 15*time.Second, "(Not connected)")
		clean(t)
	})

	t.Run("the helper ends", func(t *testing.T) {
		connect(t)
		root.cmd("systemctl", "restart", "podnet-helper.service").must(t)
		report(t, "systemctl restart podnet-helper to a restored machine", clean(t).Round(10*time.Millisecond))
		eventually(t, 5*time.Second, "the session has ended", func() error {
			if r := user.podnet("status").try(t); r.code != 3 {
				return fmt.Errorf("status: %d, %s", r.code, r.stdout)
			}
			return nil
		})
		connect(t)
		killed := s.helperPID(t)
		root.cmd("kill", "-9", killed).must(t)
		report(t, "kill -9 of podnet-helper below systemd to a restored machine", clean(t).Round(10*time.Millisecond))
		eventually(t, 5*time.Second, "systemd has started it again", func() error {
			if unit := s.show(t, "podnet-helper.service", "ActiveState", "MainPID"); !strings.Contains(unit, "ActiveState=active") || strings.Contains(unit+" ", "MainPID="+killed+" ") {
				return errors.New(unit)
			}
			return nil
		})
		connect(t)
	})

	t.Run("the power fails", func(t *testing.T) {
		// A session is on.
		if got := root.cmd("cat", "/etc/resolv.conf").must(t); !strings.Contains(got, "podnet") {
			t.Errorf("nothing is there to be taken back:\n%s", got)
		}
		s.crash(t)
		report(t, "a Debian boots", s.boot(t).Round(100*time.Millisecond))
		if unit := s.show(t, "podnet-helper-cleanup.service", "ConditionResult", "Result"); unit != "Result=success ConditionResult=yes" {
			t.Errorf("podnet-helper-cleanup: %s", unit)
		}
		clean(t)
		s.login(t, newcomer)
	})

	t.Run("restart", func(t *testing.T) {
		user.podnet("profile", "save", "work", "-n", "shop", "--auto-connect").must(t)
		user.podnet("autostart", "on").must(t)
		connected := func() error {
			if r := user.podnet("status").try(t); r.code != 0 {
				return errors.New(r.stdout + r.stderr)
			}
			return nil
		}
		took := eventually(t, 30*time.Second, "connected by the profile", connected)
		report(t, "podnet autostart on to connected", took.Round(100*time.Millisecond))
		curl(t)
		report(t, "systemctl poweroff with a session up", s.off(t).Round(100*time.Millisecond))
		if left := alice.sh("ip -br link show type tun; ip route show table all | grep podnet || true").must(t); left != "" {
			t.Errorf("in the laptop's network there is still\n%s", left)
		}
		s.boot(t)
		if got := root.cmd("cat", "/etc/resolv.conf").must(t); strings.Contains(got, "podnet") {
			t.Errorf("the resolver is not as before:\n%s", got)
		}
		began := time.Now()
		s.login(t, newcomer)
		eventually(t, 30*time.Second, "connected by the profile", connected)
		report(t, "a login to connected, by systemd's user manager", time.Since(began).Round(100*time.Millisecond))
		curl(t)
		user.podnet("autostart", "off").must(t)
		user.podnet("profile", "remove", "work").must(t)
		user.podnet("disconnect", "--all").try(t)
		clean(t)
	})

	t.Run("systemd-resolved", func(t *testing.T) {
		ours := s.written(t)
		takeOff := s.resolved(t)
		for entry := range s.written(t) {
			if !ours[entry] {
				had[entry] = true
			}
		}
		settings := "resolvectl dns; resolvectl domain; resolvectl default-route"
		before := state(t, settings)
		connect(t)
		want(t, root.cmd("resolvectl", "domain", "podnet0").must(t), "cluster.local", "~shop", "~svc")
		want(t, user.cmd("getent", "ahosts", "web.shop").must(t), clusterIP(t, "shop", "web"))
		want(t, user.cmd("getent", "ahosts", "www.example.test").must(t), "198.51.100.")
		root.cmd("kill", "-9", s.helperPID(t)).must(t)
		eventually(t, 5*time.Second, "the machine as before", func() error {
			return same(before, state(t, settings))
		})
		takeOff()
	})

	t.Run("purge", func(t *testing.T) {
		connect(t)
		root.cmd("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "purge", "--yes", "podnet").must(t)
		eventually(t, 5*time.Second, "the machine as before the install", func() error {
			return same(bare, state(t))
		})
		for entry := range s.written(t) {
			if !had[entry] {
				t.Errorf("left behind: %s", entry)
			}
		}
		if left := root.sh("ls -d /run/podnet /var/lib/podnet /etc/podnet /etc/systemd/system/*/podnet* 2>/dev/null; systemctl list-units --all --plain --no-legend 'podnet*'").try(t).stdout; left != "" {
			t.Errorf("left behind:\n%s", left)
		}
	})
	kubectl("delete", "peers,accesses", "-A", "--all").try(t)
}
