package nocore

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/nocore/coretest"
)

// roleVariable makes the test binary a program with a key: "careful" forbids cores.
const roleVariable = "PODNET_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "careful":
		if err := Forbid(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		hold()
	case "careless":
		hold()
	}
	os.Exit(m.Run())
}

// word is what a program's key is made of: no file has the key itself, nor this
// binary.
const word = "a key that nobody may read"

// hold makes a key, says so, and waits for its end.
func hold() {
	secret := bytes.Repeat([]byte(strings.ToUpper(word)+"\n"), 100)
	fmt.Println("ready")
	time.Sleep(time.Minute)
	runtime.KeepAlive(secret)
}

func TestNoCore(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGABRT, syscall.SIGSEGV} {
		for role, want := range map[string]int{"careless": 1, "careful": 0} {
			t.Run(fmt.Sprintf("%s, %v", role, signal), func(t *testing.T) {
				cores := coretest.Of(t, coretest.Self(t, roleVariable+"="+role), signal, "ready")
				if len(cores) != want {
					t.Fatalf("%d cores are left, want %d", len(cores), want)
				}
				for _, c := range cores {
					if !bytes.Contains(c, []byte(strings.ToUpper(word))) {
						t.Error("the key is not in the careless program's core: the test is blind")
					}
				}
			})
		}
	}
}

// TestChildrenAreAsTheUserWants runs a command from a process that forbids cores for
// itself: the command may leave one.
func TestChildrenAreAsTheUserWants(t *testing.T) {
	before, err := exec.Command("sh", "-c", "ulimit -Sc; ulimit -Hc").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := Forbid(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	after, err := exec.Command("sh", "-c", "ulimit -Sc; ulimit -Hc").Output()
	if err != nil || string(after) != string(before) {
		t.Errorf("a command's limits were %q and are %q, %v", before, after, err)
	}
	if cores := coretest.Of(t, coretest.Self(t, roleVariable+"=careless"), syscall.SIGABRT, "ready"); len(cores) != 1 {
		t.Errorf("a command left %d cores", len(cores))
	}
}
