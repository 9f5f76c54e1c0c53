package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// blocked says what keeps this machine from having a sandbox, as far as that is known.
func blocked(err error) error {
	b := &BlockedError{Attempt: "make a sandbox", Err: err}
	var f *failure
	if errors.As(err, &f) && f.Attempt != "" {
		b.Attempt, b.Err = f.Attempt, &failure{Text: f.Text, Errno: f.Errno}
	}
	tun := strings.Contains(err.Error(), "/dev/net/tun")
	denied := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case errors.Is(err, unix.ENOSPC) || setting("user/max_user_namespaces") == "0":
		b.Advice = "user namespaces are switched off here: sysctl user.max_user_namespaces"
	case denied && setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
		b.Advice = "AppArmor keeps capabilities from user namespaces here, unless a profile of the program allows userns: the package podnet brings one"
	case denied && setting("kernel/unprivileged_userns_clone") == "0":
		b.Advice = "user namespaces are for root only here: sysctl kernel.unprivileged_userns_clone"
	case errors.Is(err, fs.ErrNotExist) && tun:
		b.Advice = "there are no TUN devices here: modprobe tun; in a container pass --device /dev/net/tun"
	case denied && tun:
		b.Advice = "TUN devices are not for this user here: chmod 666 /dev/net/tun; in a container pass --device /dev/net/tun"
	case denied:
		b.Advice = "a container's seccomp filter or another policy forbids it here"
	}
	return b
}

// setting is a sysctl, "" where there is none.
func setting(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(b))
}
