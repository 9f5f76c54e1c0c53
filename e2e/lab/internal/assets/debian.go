package assets

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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
	"xvfb", "xfce4-panel", "xdotool", "xclip", "scrot", "adwaita-icon-theme", "librsvg2-common", "fonts-dejavu-core",
	// Shells whose completion is tried, and what reads our packages.
	"bash-completion", "fish", "rpm", "man-db", "groff-base",
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

// apt runs apt-get, with fresh lists if the old ones do not do.
func apt(ctx context.Context, args ...string) error {
	env := []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"}
	try := func() error {
		_, err := command(ctx, "", env, append([]string{"apt-get", "-q"}, args...)...)
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
		download := append([]string{"apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"},
			"systemd-resolved="+version, "libnss-resolve="+version)
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
			if _, err := command(ctx, "", nil, "dpkg-deb", "-x", f, tmp); err != nil {
				return err
			}
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
