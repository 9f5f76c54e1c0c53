//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// system is a Debian that is booted where a laptop of the lab is: its systemd is
// process 1 of namespaces of its own, and in the laptop's network. What it has on
// disk is what this computer has, with a layer of its own above, which outlives a
// reboot; of services it has those alone that every Debian has.
type system struct {
	on     machine
	shared string        // a folder that both see at the same place
	layer  string        // what the system has written, below upper
	first  int           // process 1, as this computer knows it; 0: the system is off
	over   chan struct{} // closed once it is off
	logins []*exec.Cmd   // that last until then
	talk   bytes.Buffer
}

// accounts are the system's users beside root: an administrator, as the first user of
// a Debian is one, and somebody else.
const (
	newcomer = "newcomer"
	guest    = "guest"
)

// systemGroup is the control group of the system's processes.
const systemGroup = "podnet-e2e-system"

// turnOn waits for a system and cleans up after it. The version 2 tree of control
// groups is there on every kernel, wherever it is mounted, if at all.
const turnOn = `
mkdir -p "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
from=$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "$1/cgroup/` + systemGroup + `"
echo $$ >"$1/cgroup/` + systemGroup + `/cgroup.procs"
setpriv --pdeathsig KILL unshare --cgroup --mount --pid --fork --kill-child --uts --ipc sh -euc "$boot" boot "$@" || true
echo $$ >"$1/cgroup$from/cgroup.procs"
find "$1/cgroup/` + systemGroup + `" -depth -type d -exec rmdir {} +
`

// bootSystem LAYER SHARED PROGRAM DNS becomes the system's process 1. What it mounts
// is what systemd expects of those who run it in a container,
// https://systemd.io/CONTAINER_INTERFACE: of this computer's devices and settings it
// gets those of the network alone.
const bootSystem = `
layer=$1 shared=$2 program=$3 dns=$4
read -r pid rest </proc/self/stat # by its number outside
mount --make-rprivate /
mkdir -p "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay system -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
cd "$layer/root"
if [ ! -e "$layer/furnished" ]; then
	rm -rf etc/systemd/system/* etc/systemd/user/* etc/rc?.d/* etc/dpkg/dpkg.cfg.d/* etc/apt/apt.conf.d/* usr/sbin/policy-rc.d etc/resolv.conf var/lib/podnet etc/podnet
	: >etc/fstab
	echo system >etc/hostname
	echo "nameserver $dns" >etc/resolv.conf
	mkdir -p etc/tmpfiles.d
	ln -s /dev/null etc/tmpfiles.d/tmp.conf # /tmp is new each time anyhow
	chroot . useradd --create-home --shell /bin/bash --groups sudo ` + newcomer + `
	chroot . useradd --create-home --shell /bin/bash ` + guest + `
	: >"$layer/furnished"
fi
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro,nosuid,nodev,noexec proc/sys
if [ -e proc/sysrq-trigger ]; then
	mount --bind proc/sysrq-trigger proc/sysrq-trigger
	mount -o remount,bind,ro proc/sysrq-trigger
fi
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
	name=${device%%:*} numbers=${device#*:}
	mkdir -p "dev/$(dirname "$name")"
	mknod -m 666 "dev/$name" c "${numbers%:*}" "${numbers#*:}"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5,nosuid,noexec devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "dev/${n#*:}"; done
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir -p ".$shared" ".$(dirname "$program")"
mount --bind "$shared" ".$shared"
[ -e ".$program" ] || : >".$program"
mount --bind "$program" ".$program"
hostname system
echo "$pid" >"$layer/first"
pivot_root . mnt
umount -l /mnt
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=podnet-e2e /lib/systemd/systemd --unit=multi-user.target </dev/null
`

// system boots a Debian on the machine for the time of a test. Its users have the
// kubeconfig of the machine's.
func (m machine) system(t *testing.T) *system {
	t.Helper()
	s := &system{on: m}
	for _, dir := range []*string{&s.shared, &s.layer} {
		var err error
		if *dir, err = os.MkdirTemp("", "podnet-e2e-system"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(*dir) })
		if err := os.Chmod(*dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// An upper layer cannot be below what it lies upon.
	if err := unix.Mount("tmpfs", s.layer, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.layer, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s.boot(t)
	t.Cleanup(func() {
		if t.Failed() && s.first != 0 {
			t.Logf("the system's journal:\n%s", s.root().sh("journalctl --boot --no-pager --lines=200").try(t).stdout)
		}
		s.crash(t)
	})
	kubeconfig := m.sh(`cat "${KUBECONFIG:-$HOME/.kube/config}"`).must(t)
	for _, user := range []string{newcomer, guest} {
		write(t, filepath.Join(s.shared, "kubeconfig"), kubeconfig)
		s.root().sh(fmt.Sprintf("install -d -m 700 -o %[1]s -g %[1]s /home/%[1]s/.kube && install -m 600 -o %[1]s -g %[1]s %[2]s/kubeconfig /home/%[1]s/.kube/config", user, s.shared)).must(t)
	}
	return s
}

// boot turns the system on, and waits until it is up.
func (s *system) boot(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dns := s.on.sh("sed -n 's/^nameserver //p' /etc/resolv.conf").must(t)
	run := exec.Command("nsenter", "--net=/run/netns/podnet-lab-"+s.on.name, "unshare", "--mount", "sh", "-euc", turnOn, "system", s.layer, s.shared, self, strings.Fields(dns)[0])
	run.Env = append(os.Environ(), "boot="+bootSystem)
	s.talk.Reset()
	run.Stdout, run.Stderr = &s.talk, &s.talk
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	s.over = over
	go func() { _ = run.Wait(); close(over) }()
	eventually(t, 30*time.Second, "process 1", func() error {
		select {
		case <-over:
			t.Fatalf("the system does not start: %s", s.talk.String())
		default:
		}
		text, err := os.ReadFile(filepath.Join(s.layer, "first"))
		if err == nil {
			_, err = fmt.Sscan(string(text), &s.first)
		}
		if err == nil {
			text, err = os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.first))
		}
		if err == nil && strings.TrimSpace(string(text)) != "systemd" {
			err = fmt.Errorf("it is %s", text)
		}
		return err
	})
	state := ""
	eventually(t, 60*time.Second, "the system is up", func() error {
		r := s.root().cmd("systemctl", "is-system-running").try(t)
		if state = strings.TrimSpace(r.stdout); state != "running" && state != "degraded" {
			return fmt.Errorf("%s%s", state, r.stderr)
		}
		return nil
	})
	took := time.Since(began)
	if state == "degraded" { // by something that a container has not
		t.Logf("what has failed:\n%s", s.root().cmd("systemctl", "--failed", "--plain", "--no-legend").must(t))
	}
	return took
}

// crash is a power failure.
func (s *system) crash(t *testing.T) {
	t.Helper()
	if s.first != 0 {
		_ = syscall.Kill(s.first, syscall.SIGKILL)
		s.wait(t)
	}
}

// off turns the system off as its administrator would.
func (s *system) off(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	_ = s.root().cmd("systemctl", "poweroff").run(context.Background()) // which may end with the system
	s.wait(t)
	return time.Since(began)
}

// wait waits until no process of the system is left.
func (s *system) wait(t *testing.T) {
	t.Helper()
	select {
	case <-s.over:
	case <-time.After(30 * time.Second):
		t.Fatalf("the system is not off: %s", s.talk.String())
	}
	for _, login := range s.logins {
		_ = login.Process.Kill()
		_ = login.Wait()
	}
	s.first, s.logins = 0, nil
	if err := os.Remove(filepath.Join(s.layer, "first")); err != nil {
		t.Error(err)
	}
}

// root and user are the system seen by its users.
func (s *system) root() machine { return machine{name: s.on.name, booted: s} }

func (s *system) user(name string) machine {
	return machine{name: s.on.name, booted: s, user: name}.plain()
}

// command is a command in the system: of an ordinary user a login's, of others
// root's, with a user's places where there is one. It ends with who has asked for it.
func (s *system) command(m machine, args []string) command {
	run := []string{"nsenter", fmt.Sprintf("--target=%d", s.first), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "setpriv", "--pdeathsig", "TERM",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	shown := strings.Join(args, " ")
	switch {
	case m.ordinary:
		script := "exec"
		for _, a := range args {
			script += " '" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		args = []string{"runuser", "--login", m.user, "--command", script}
	case m.user != "":
		script := `eval home=~$1; export HOME="$home" USER=$1 LOGNAME=$1 XDG_RUNTIME_DIR=/run/user/$(id -u $1); shift; exec "$@"`
		args = append([]string{"sh", "-c", script, "sh", m.user}, args...)
	}
	return command{args: append(run, args...), shown: shown, where: "the system on " + m.name}
}

// login is the user's, who stays until the system is off.
func (s *system) login(t *testing.T, user string) {
	t.Helper()
	stays := s.user(user).cmd("sleep", "infinity").exec(context.Background())
	if err := stays.Start(); err != nil {
		t.Fatal(err)
	}
	s.logins = append(s.logins, stays)
	eventually(t, 10*time.Second, user+" is logged in", func() error {
		return s.root().sh("test -S /run/user/$(id -u " + user + ")/systemd/private").run(t.Context())
	})
}

// written are the files and folders that the system has of its own, or that it has
// not any more, with the letters by which find calls their kinds. Logs, caches and
// homes do not count.
func (s *system) written(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	upper := filepath.Join(s.layer, "upper")
	for line := range strings.Lines(host("find", upper, "-printf", "%y /%P\n").must(t)) {
		line = strings.TrimSpace(line)
		kind, name, _ := strings.Cut(line, " ")
		for _, noise := range []string{"/home/", "/root/", "/var/log/", "/var/cache/", "/var/lib/dpkg/", "/var/lib/apt/", "/var/lib/systemd/", "/var/tmp/", "/etc/.updated", "/var/.updated", "/var/lib/man-db/"} {
			if strings.HasPrefix(name+"/", noise) {
				kind = ""
			}
		}
		if info, err := os.Stat(name); kind == "" || kind == "d" && err == nil && info.IsDir() {
			continue // below, there is a folder of that name as well
		}
		all[line] = true
	}
	return all
}
