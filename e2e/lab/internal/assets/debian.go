package assets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// debianPackages are what the lab and its tests call.
var debianPackages = []string{
	"containerd", "runc", "containernetworking-plugins", "etcd-server",
	"nftables", "iptables", "conntrack", "iproute2", "procps", "dbus",
	"curl", "dnsutils", "iputils-ping", "socat", "jq", "openssl",
	"tcpdump", "iperf3", "wireguard-tools", "wrk", "nghttp2-client", "postgresql", "chromium",
	// Two C libraries to resolve names with.
	"libc6-dev", "musl-tools",
	// A screen, a panel on it that shows icons, and a user's hands and eyes.
	"xvfb", "xfce4-panel", "xdotool", "xclip", "scrot", "adwaita-icon-theme", "librsvg2-common", "fonts-dejavu-core", "xterm",
	// Shells whose completion is tried, and what reads our packages.
	"bash-completion", "fish", "rpm", "man-db", "groff-base", "apparmor",
	// A virtual machine, and what lists its kernel's modules.
	"qemu-system-x86", "kmod",
}

// debian installs what is missing.
func (b builder) debian(ctx context.Context) error {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		return errors.New("the lab takes containerd, etcd and more from Debian's packages: it needs Debian 12 or a relative")
	}
	missing := missingPackages(ctx, debianPackages)
	if len(missing) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("packages are missing, and only root can install them: apt-get install %s", strings.Join(missing, " "))
	}
	return b.report.Step("installed Debian packages "+strings.Join(missing, " "), func() error {
		allow, err := forbidServices()
		if err != nil {
			return err
		}
		defer allow()
		return apt(ctx, append([]string{"install", "--yes", "--no-install-recommends"}, missing...)...)
	})
}

func missingPackages(ctx context.Context, want []string) []string {
	// It fails when one is unknown, and lists the others all the same.
	out, _ := exec.CommandContext(ctx, "dpkg-query", append([]string{"-W", "-f", "${Package} ${db:Status-Status}\n"}, want...)...).Output()
	have := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), " installed"); ok {
			have[name] = true
		}
	}
	var missing []string
	for _, name := range want {
		if !have[name] {
			missing = append(missing, name)
		}
	}
	return missing
}

// apt runs apt-get, with fresh lists if the old ones do not do. It waits while
// somebody else installs.
func apt(ctx context.Context, args ...string) error {
	env := []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"}
	try := func() error {
		_, err := command(ctx, "", env, append([]string{"apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
		return err
	}
	if try() == nil {
		return nil
	}
	if _, err := command(ctx, "", env, "apt-get", "-q", "update"); err != nil {
		return err
	}
	return try()
}

// forbidServices keeps packages from starting their services on this computer
// (Debian policy 9.3.3): the lab runs its own containerd and etcd.
func forbidServices() (allow func(), err error) {
	const policy = "/usr/sbin/policy-rc.d"
	f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil // the administrator has said something already
	}
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString("#!/bin/sh\nexit 101\n")
	return func() { _ = os.Remove(policy) }, errors.Join(err, f.Close())
}

// guestKernel unpacks Debian's kernel for virtual machines without installing it, for
// e2e/guest, which looks for it in the cache.
func (b builder) guestKernel(ctx context.Context) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("the virtual machine is a PC")
	}
	image, err := guestImage(ctx)
	if err != nil {
		return err
	}
	_, err = b.folder(filepath.Join("guest-kernel", image), func(tmp string) error {
		debs, err := os.MkdirTemp(b.cache, ".debs-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(debs)
		if err := b.unpack(ctx, debs, tmp, image); err != nil {
			return err
		}
		versions, err := os.ReadDir(filepath.Join(tmp, "lib/modules"))
		if err != nil {
			return err
		}
		for _, v := range versions { // what installing the package would do
			if _, err := command(ctx, "", nil, "depmod", "-b", tmp, v.Name()); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// guestImage is the package that has the newest kernel: an empty one depends on it.
func guestImage(ctx context.Context) (string, error) {
	const newest = "linux-image-cloud-amd64"
	out, err := command(ctx, "", nil, "apt-cache", "depends", "--important", newest)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, nil
		}
	}
	return "", fmt.Errorf("apt knows no %s", newest)
}

// unpack gets packages into the folder debs and has their files below to. Lists that
// are too old to know where they are now are got anew.
func (b builder) unpack(ctx context.Context, debs, to string, packages ...string) error {
	download := append([]string{"apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"}, packages...)
	if _, err := command(ctx, debs, nil, download...); err != nil {
		if _, err := command(ctx, "", nil, "apt-get", "-q", "update"); err != nil {
			return err
		}
		if _, err := command(ctx, debs, nil, download...); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, err := command(ctx, "", nil, "dpkg-deb", "-x", f, to); err != nil {
			return err
		}
	}
	return nil
}

// resolved unpacks systemd-resolved without installing it: its installation
// would take over this computer's /etc/resolv.conf.
func (b builder) resolved(ctx context.Context) (string, error) {
	// It has to be of the same version as the systemd library it links.
	version, err := command(ctx, "", nil, "dpkg-query", "-W", "-f", "${Version}", "systemd")
	if err != nil {
		return "", err
	}
	return b.folder(filepath.Join("resolved", version), func(tmp string) error {
		debs := filepath.Join(tmp, "debs")
		if err := os.Mkdir(debs, 0o755); err != nil {
			return err
		}
		if err := b.unpack(ctx, debs, tmp, "systemd-resolved="+version, "libnss-resolve="+version); err != nil {
			return err
		}
		// Packages may ship /lib apart; the host has it merged into /usr.
		lib := filepath.Join(tmp, "lib")
		if _, err := os.Stat(lib); err == nil {
			if _, err := command(ctx, "", nil, "cp", "-a", lib+"/.", filepath.Join(tmp, "usr/lib")); err != nil {
				return err
			}
			if err := os.RemoveAll(lib); err != nil {
				return err
			}
		}
		return os.RemoveAll(debs)
	})
}
