package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// otherComputer runs make as on another computer, as far as one can be another: with a host
// name, a user and a home of its own, another clock's zone, language, umask and number of
// processors, Go, its modules and the sources at other places, the sources on another file
// system, in other order, and years older; and nothing was compiled before. There is no
// other time of day: what Go has built asks the kernel for it, which has only one.
//
//	$0 FOLDER SOURCES OUT ARGUMENT... <FILES
const otherComputer = `set -eu
here=$1 from=$2 out=$3
shift 3
mount -t tmpfs -o mode=755 none "$here"
mkdir "$here/go" "$here/modules" "$here/home" "$here/sources" "$here/temp"
mount --bind "$GOROOT" "$here/go"
mount --bind "$GOMODCACHE" "$here/modules"
hostname elsewhere.example.org
cd "$from"
sort --zero-terminated --reverse | xargs -0 cp --parents --target-directory="$here/sources"
cd "$here/sources"
find . -exec touch --date=@1000000000 {} +
umask 077
env -i PATH="$here/go/bin:$PATH" HOME="$here/home" TMPDIR="$here/temp" GOMODCACHE="$here/modules" GOPROXY=off GOAMD64=v3 \
	USER=somebody TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 GOMAXPROCS=5 taskset --cpu-list 0 make "$@" >&2
cp -r bin "$out"
`

// TestOtherComputerSameBytes makes podnet-agent here and, from nothing, elsewhere; in its
// long form all that is released for Linux on this kind of processor.
func TestOtherComputerSameBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles Go's library and ours anew")
	}
	if said, err := exec.Command("unshare", append(another, "true")...).CombinedOutput(); err != nil {
		t.Skipf("no namespaces for us here: %v: %s", err, said)
	}
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = "../.."
	files, err := list.Output()
	if err != nil {
		t.Fatalf("list the sources: %v", err)
	}
	args := []string{"build", "PROGRAMS=./cmd/podnet-agent"}
	if os.Getenv("PODNET_E2E_LONG") != "" {
		args = []string{"packages", "CROSS=linux/" + goEnv(t, "GOARCH"), "DATE=1795392000"}
	}
	args = append(args, "VERSION=1.2.3")

	here, there := t.TempDir(), t.TempDir()
	copied := exec.Command("xargs", "-0", "cp", "--parents", "--target-directory="+here)
	copied.Dir, copied.Stdin = "../..", bytes.NewReader(files)
	run(t, copied)
	ours := exec.Command("make", append([]string{"-C", here}, args...)...)
	ours.Env = append(os.Environ(), "MAKEFLAGS=") // of the make that runs the tests
	run(t, ours)

	began := time.Now()
	other := exec.Command("unshare", append(another, append([]string{"sh", "-c", otherComputer, "sh", t.TempDir(), here, filepath.Join(there, "bin")}, args...)...)...)
	other.Env = append(os.Environ(), "GOROOT="+goEnv(t, "GOROOT"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	other.Stdin = bytes.NewReader(files)
	run(t, other)
	took := time.Since(began)

	want, got := checksumsOf(t, filepath.Join(here, "bin")), checksumsOf(t, filepath.Join(there, "bin"))
	same := 0
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s has checksum %s here, and %q elsewhere", name, want[name], got[name])
			continue
		}
		same++
	}
	if len(want) == 0 || len(got) != len(want) {
		t.Errorf("%d files here, and %d elsewhere", len(want), len(got))
	}
	t.Logf("MEASURED [59] files that have the same bytes when made elsewhere  %d of %d, in %v", same, len(want), took.Round(time.Second))
}

// another are the flags of unshare for a user who may do there what a computer's root may.
var another = []string{"--user", "--map-user=4711", "--map-group=4711", "--keep-caps", "--mount", "--uts"}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Path, err, said)
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
