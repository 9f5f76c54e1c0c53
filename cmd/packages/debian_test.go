package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// newDebian makes a root with what the package's scripts call, and a dpkg that knows
// nothing but it.
func newDebian(t *testing.T) (root string, dpkg func(args ...string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("dpkg runs a package's scripts in a chroot, which takes root")
	}
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("no dpkg here")
	}
	root = t.TempDir()
	put := func(name string, raw []byte) {
		t.Helper()
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, raw, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	take := func(name string) {
		t.Helper()
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		put(name, raw)
	}
	for _, program := range []string{"/bin/sh", "/bin/cp", "/bin/rm"} {
		take(program)
		libraries, err := exec.Command("ldd", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
			take(name)
		}
	}
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("var/lib/dpkg/status", nil)
	return root, func(args ...string) {
		t.Helper()
		// The machine that runs the tests may have been told to leave out pages and docs.
		cmd := exec.Command("dpkg", append([]string{"--root=" + root, "--log=/dev/null", "--path-include=*", "--force-bad-path"}, args...)...)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, said)
		}
	}
}

// filesOf are the files of a root, without dpkg's notes.
func filesOf(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		within, _ := filepath.Rel(root, name)
		if err == nil && !d.IsDir() && !strings.HasPrefix(within, "var/lib/dpkg/") {
			all = append(all, "/"+within)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// TestDebianPackage has dpkg install, remove and purge the package for real.
func TestDebianPackage(t *testing.T) {
	deb := filepath.Join(release1(t), thisDeb)
	root, dpkg := newDebian(t)
	before := filesOf(t, root)
	dpkg("--install", deb)
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/podnet": 0o755, "usr/bin/podnet-tray": 0o755, "usr/libexec/podnet-helper": 0o755, "usr/bin/kubectl_complete-podnet": 0o755,
		"usr/lib/systemd/system/podnet-helper.socket": 0o644, "usr/lib/systemd/system/podnet-helper.service": 0o644, "usr/lib/systemd/system/podnet-helper-cleanup.service": 0o644,
		"etc/podnet/helper.yaml": 0o644, "usr/share/bash-completion/completions/podnet": 0o644, "usr/share/zsh/vendor-completions/_podnet": 0o644,
		"usr/share/fish/vendor_completions.d/podnet.fish": 0o644, "usr/share/man/man1/podnet.1.gz": 0o644, "usr/share/man/man1/podnet-steer-list.1.gz": 0o644,
		"usr/share/doc/podnet/copyright": 0o644, "usr/share/doc/podnet/docs/cli.md": 0o644, "usr/share/doc/podnet/html/index.html": 0o644, "usr/share/applications/podnet-tray.desktop": 0o644,
	} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(root, "usr/bin/kubectl-podnet")); to != "podnet" {
		t.Errorf("kubectl-podnet leads to %q: %v", to, err)
	}
	// Only AppArmor 4 knows the word userns.
	profile := filepath.Join(root, "etc/apparmor.d/podnet")
	if _, err := os.Stat(profile); err == nil {
		t.Error("a profile that this AppArmor does not understand")
	}
	abi := filepath.Join(root, "etc/apparmor.d/abi/4.0")
	if err := os.MkdirAll(filepath.Dir(abi), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(abi, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg("--install", deb) // an upgrade
	if raw, err := os.ReadFile(profile); !bytes.Contains(raw, []byte("profile podnet /usr/bin/podnet flags=(unconfined) {\n  userns,\n")) {
		t.Errorf("%v: %s", err, raw)
	}
	if _, err := os.Stat(filepath.Join(root, "cleaned")); err == nil {
		t.Error("an upgrade has taken back what sessions changed")
	}
	config := filepath.Join(root, "etc/podnet/helper.yaml")
	if err := os.WriteFile(config, []byte("# ours\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg("--remove", "podnet")
	if raw, err := os.ReadFile(config); string(raw) != "# ours\n" {
		t.Errorf("what was configured is %q: %v", raw, err)
	}
	dpkg("--purge", "podnet")
	if after := filesOf(t, root); !slices.Equal(after, slices.Sorted(slices.Values(append(before, "/cleaned", "/etc/apparmor.d/abi/4.0")))) {
		t.Errorf("left behind:\n%s\nthere before:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

// TestAppArmorProfile has AppArmor's own parser read the profile. One before 4 does not
// know what it is for, which is why postinst leaves it out there, and reads the rest.
func TestAppArmorProfile(t *testing.T) {
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skip("no apparmor_parser here; the lab's packages have it")
	}
	profile, err := os.ReadFile("../../deploy/packages/files/podnet.apparmor")
	if err != nil {
		t.Fatal(err)
	}
	parse := func(text string) (said string, ok bool) {
		cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache")
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		return string(out), err == nil
	}
	text := string(profile)
	if _, err := os.Stat("/etc/apparmor.d/abi/4.0"); err != nil {
		if _, ok := parse(text); ok {
			t.Error("a parser without abi/4.0 takes the profile: postinst asks for the wrong file")
		}
		text = strings.NewReplacer("abi/4.0", "abi/3.0", "\n  userns,\n", "\n").Replace(text)
		if text == string(profile) {
			t.Fatal("the profile allows nothing")
		}
	}
	if said, ok := parse(text); !ok {
		t.Errorf("%s\n%s", text, said)
	}
	if said, ok := parse(strings.Replace(text, "profile podnet", "profil podnet", 1)); ok {
		t.Errorf("a mistake is not seen: %s", said)
	}
}

// The pages are such that man shows them without a complaint.
func TestManPages(t *testing.T) {
	dir := release1(t)
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("no man here")
	}
	root := t.TempDir()
	if said, err := exec.Command("dpkg-deb", "-x", filepath.Join(dir, thisDeb), root).CombinedOutput(); err != nil {
		t.Skipf("no dpkg-deb here: %v: %s", err, said)
	}
	pages, err := filepath.Glob(filepath.Join(root, "usr/share/man/man1/*.gz"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		cmd := exec.Command("man", "--warnings", "--local-file", page)
		cmd.Env = append(os.Environ(), "MANPAGER=cat", "LC_ALL=C.UTF-8", "MANWIDTH=100")
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil || said.Len() > 0 || !bytes.Contains(out, []byte("SYNOPSIS")) {
			t.Errorf("%s: %v: %s", filepath.Base(page), err, said.String())
		}
	}
}

// rpm reads the .rpm.
func TestRPM(t *testing.T) {
	dir := release1(t)
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skip("no rpm here; the lab's packages have it")
	}
	name := filepath.Join(dir, strings.TrimSuffix(thisDeb, ".deb")+".rpm")
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", append(args, name)...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := rpm("--query", "--package", "--queryformat", "%{NAME} %{VERSION} %{LICENSE} %{BUILDHOST}"); got != "podnet 1.2.3 Apache-2.0 podnet.dev" {
		t.Errorf("%s", got)
	}
	list := strings.Split(rpm("--query", "--package", "--list"), "\n")
	for _, want := range []string{"/usr/bin/podnet", "/usr/bin/kubectl-podnet", "/usr/libexec/podnet-helper", "/usr/share/zsh/site-functions/_podnet"} {
		if !slices.Contains(list, want) {
			t.Errorf("no %s in\n%s", want, strings.Join(list, "\n"))
		}
	}
	for _, no := range []string{"/usr/bin", "/usr/share/zsh/vendor-completions/_podnet", "/usr/share/podnet/podnet.apparmor"} {
		if slices.Contains(list, no) {
			t.Errorf("it has %s", no)
		}
	}
	if got := rpm("--query", "--package", "--configfiles"); got != "/etc/podnet/helper.yaml\n" {
		t.Errorf("configuration: %q", got)
	}
	if got := rpm("--checksig"); !strings.Contains(got, "OK") {
		t.Errorf("%s", got)
	}
}
