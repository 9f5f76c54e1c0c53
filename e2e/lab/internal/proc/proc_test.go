package proc

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStartedProcessIsFoundAndEnded(t *testing.T) {
	table := Table{Dir: t.TempDir()}
	s := Spec{Name: "sleeper", Argv: []string{"sleep", "600"}, Log: filepath.Join(t.TempDir(), "log")}
	p, err := table.Start(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Start(s, nil); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("second start: %v", err)
	}
	if found, err := table.Get("sleeper"); err != nil || found.PID != p.PID || !found.Alive() {
		t.Errorf("%+v, %v", found, err)
	}
	if err := table.Stop(t.Context(), "sleeper", time.Second); err != nil {
		t.Error(err)
	}
	if p.Alive() {
		t.Error("still alive")
	}
	if err := table.Stop(t.Context(), "sleeper", time.Second); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

// TestStubbornProcessIsKilled stops one that hears no SIGTERM and is stopped.
func TestStubbornProcessIsKilled(t *testing.T) {
	table := Table{Dir: t.TempDir()}
	p, err := table.Start(Spec{
		Name: "mule", Argv: []string{"sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"},
		Log: filepath.Join(t.TempDir(), "log"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(read(t, p.Log), "deaf") {
		time.Sleep(10 * time.Millisecond)
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := table.Stop(t.Context(), "mule", 50*time.Millisecond); err != nil || p.Alive() {
		t.Errorf("%v, alive %v", err, p.Alive())
	}
}

// TestForeignProcessIsLeftAlone has a record whose id now belongs to another.
func TestForeignProcessIsLeftAlone(t *testing.T) {
	p := Process{PID: os.Getpid(), Start: "1", Spec: Spec{Name: "was-here"}}
	if p.Alive() {
		t.Error("a process with another start time is taken for ours")
	}
	if err := p.Signal(syscall.SIGKILL); err == nil {
		t.Error("signalled a foreign process")
	}
}

func TestParseStat(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21"
	for _, name := range []string{"(sh)", "(a b)", "(:) R 1)", "()", "())"} {
		st, err := parseStat("12 " + name + tail)
		if err != nil || st.state != "S" || st.threads != "17" || st.start != "777" {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
	for _, bad := range []string{"", "12", "12 (sh)", "12 (sh) S 1 2"} {
		if st, err := parseStat(bad); err == nil {
			t.Errorf("%q: %+v", bad, st)
		}
	}
}

// TestExecOfAnotherThreadIsNoEnd: for a moment the process's first thread is a
// zombie, and yet the process lives on.
func TestExecOfAnotherThreadIsNoEnd(t *testing.T) {
	for s, want := range map[status]bool{
		{state: "Z", threads: "7"}: false,
		{state: "Z", threads: "1"}: true,
		{state: "Z", threads: "0"}: true,
		{state: "X", threads: "1"}: true,
		{state: "S", threads: "1"}: false,
	} {
		if s.ended() != want {
			t.Errorf("%+v ended: %v", s, !want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21")
	f.Add("1 ()) ) R")
	f.Add(")")
	f.Fuzz(func(t *testing.T, s string) {
		if st, err := parseStat(s); err == nil && (st.state == "" || st.start == "") {
			t.Errorf("%q: %+v", s, st)
		}
	})
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(content)
}
