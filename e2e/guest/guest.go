// Package guest boots a small virtual machine with Debian's kernel, for what the
// kernel that tests run on may lack. It has no disk: its first process is a program
// of the test's, beside it are the kernel's modules and whatever else is given. Its
// network is QEMU's own, behind which Gateway is the loopback of the machine that
// the test runs on; so it takes no privilege.
//
// It is emulated, which takes some seconds more than KVM would: where this machine is
// a virtual one itself /dev/kvm may be there and not get a guest to boot. Where it
// does, PODNET_GUEST_ACCEL=kvm makes use of it.
package guest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// Addresses of QEMU's network, as its manual has them.
var (
	// Address is the guest's.
	Address = netip.MustParsePrefix("10.0.2.15/24")
	// Gateway is where the guest finds what listens on loopback outside.
	Gateway = netip.MustParseAddr("10.0.2.2")
	// Resolver hands the guest's questions to the resolver outside.
	Resolver = netip.MustParseAddr("10.0.2.3")
)

const (
	// modulesDir is where the guest has its modules, in the order to load them.
	modulesDir = "/modules"
	// memory is the guest's, in MiB: twice a program of 100 MB, and some.
	memory = 768
	// program is QEMU's.
	program = "qemu-system-x86_64"
)

// Config of a machine.
type Config struct {
	// Init is the first process, a program without libraries. It calls SetUp.
	Init string
	// Env are variables of Init's; their values have no spaces.
	Env map[string]string
	// Files are more files, by their absolute names in the guest.
	Files map[string]string
	// Modules of the kernel, and those that they need, are loaded by SetUp.
	Modules []string
	// Console gets what the guest says, line by line.
	Console func(line string)
}

// Kernel is Debian's, unpacked.
type Kernel struct {
	image   string // what boots
	modules string // folder of modules.dep
}

// Need finds QEMU and the kernel, which "bin/lab build" fetches, or skips the test.
func Need(t testing.TB) Kernel {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skipf("the guest is a PC with Linux, this is %s on %s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("no QEMU: `bin/lab build` installs it, or apt-get install --no-install-recommends qemu-system-x86")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache folder: ", err)
	}
	found, err := filepath.Glob(filepath.Join(cache, "podnet-lab", "guest-kernel", "*"))
	if err != nil || len(found) == 0 {
		t.Skip("no kernel for a guest: `bin/lab build` fetches Debian's")
	}
	slices.Sort(found)
	dir := found[len(found)-1]
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	if len(images) != 1 || len(modules) != 1 {
		t.Fatalf("%s has %d kernels and %d folders of modules, want one of each", dir, len(images), len(modules))
	}
	return Kernel{images[0], modules[0]}
}

// Static is whether a program can be an Init: one that needs no libraries.
func Static(file string) (bool, error) {
	f, err := elf.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// Run boots a machine and waits until it has powered itself off. dir is for files
// that it needs meanwhile.
func (k Kernel) Run(ctx context.Context, dir string, c Config) error {
	initrd := filepath.Join(dir, "initrd")
	if err := k.pack(initrd, c); err != nil {
		return fmt.Errorf("pack the guest's files: %w", err)
	}
	// What the kernel does not know it hands to the first process as a variable.
	words := []string{"console=ttyS0", "loglevel=4", "panic=-1", "random.trust_cpu=on", "mitigations=off", "edd=off", "rdinit=/init"}
	for name, value := range c.Env {
		words = append(words, name+"="+value)
	}
	cmd := exec.CommandContext(ctx, program, "-accel", cmp.Or(os.Getenv("PODNET_GUEST_ACCEL"), "tcg"),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(memory),
		"-kernel", k.image, "-initrd", initrd, "-append", strings.Join(words, " "), "-serial", "stdio",
		"-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=")
	var said bytes.Buffer
	cmd.Stderr = &said
	console, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(console); lines.Scan(); {
		c.Console(strings.TrimRight(lines.Text(), "\r"))
	}
	_, _ = io.Copy(io.Discard, console) // after a line that is too long
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, cmp.Or(context.Cause(ctx), err), bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// pack writes the guest's file system.
func (k Kernel) pack(file string, c Config) (err error) {
	needed, err := modules(os.DirFS(k.modules), c.Modules)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buffered := bufio.NewWriter(out)
	a := &archive{to: buffered}
	a.console()
	a.file("/init", c.Init)
	for name, from := range c.Files {
		a.file(name, from)
	}
	for i, m := range needed {
		a.file(fmt.Sprintf("%s/%03d", modulesDir, i), filepath.Join(k.modules, m))
	}
	a.end()
	return errors.Join(a.err, buffered.Flush())
}
