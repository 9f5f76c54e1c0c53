// Package proc starts the lab's long-running pieces so that they outlive the
// command that started them, and ends exactly those again: a record keeps each
// process's id together with its start time, so an id that the kernel has
// given to somebody else is never touched.
package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Spec is a program to keep running.
type Spec struct {
	Name string   `json:"name"` // unique in the lab: "kubelet-node1"
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"` // added to the environment
	Log  string   `json:"log"`           // file that gets stdout and stderr
}

// Process is a Spec that was started.
type Process struct {
	Spec
	PID   int    `json:"pid"`
	Start string `json:"start"` // from /proc/PID/stat: clock ticks since boot
}

// Table keeps one record per process in a directory.
type Table struct{ Dir string }

func (t Table) file(name string) string { return filepath.Join(t.Dir, name+".json") }

// Start starts s detached: own session, no terminal, log for output. before is
// called on the command before it starts and may change it. A process of that
// name that still runs is an error.
func (t Table) Start(s Spec, before func(*exec.Cmd)) (Process, error) {
	if p, err := t.Get(s.Name); err == nil && p.Alive() {
		return p, fmt.Errorf("start %s: it runs already, as process %d", s.Name, p.PID)
	}
	for _, dir := range []string{t.Dir, filepath.Dir(s.Log)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return Process{}, err
		}
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return Process{}, err
	}
	defer log.Close()
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if before != nil {
		before(cmd)
	}
	if err := cmd.Start(); err != nil {
		return Process{}, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p := Process{Spec: s, PID: cmd.Process.Pid}
	go func() { _ = cmd.Wait() }() // reaps it if it ends before we do
	st, err := stat(p.PID)
	if err != nil {
		return p, fmt.Errorf("start %s: it ended at once; see %s", s.Name, s.Log)
	}
	p.Start = st.start
	record, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return p, err
	}
	return p, os.WriteFile(t.file(s.Name), append(record, '\n'), 0o644)
}

// Get is the record of a process, running or not.
func (t Table) Get(name string) (Process, error) {
	var p Process
	content, err := os.ReadFile(t.file(name))
	if err == nil {
		err = json.Unmarshal(content, &p)
	}
	if err != nil {
		return p, fmt.Errorf("process %s: %w", name, err)
	}
	return p, nil
}

// All are the records in the table, by name.
func (t Table) All() ([]Process, error) {
	files, err := filepath.Glob(t.file("*"))
	if err != nil {
		return nil, err
	}
	var all []Process
	var errs []error
	for _, f := range files {
		p, err := t.Get(strings.TrimSuffix(filepath.Base(f), ".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil { // half a record: nothing to act on
			errs = append(errs, err, os.Remove(f))
			continue
		}
		all = append(all, p)
	}
	return all, errors.Join(errs...)
}

// Stop asks a process to end, insists after grace, and keeps its record so
// that it can be started again. One that has ended is no error.
func (t Table) Stop(ctx context.Context, name string, grace time.Duration) error {
	p, err := t.Get(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.end(ctx, grace)
}

// Forget removes the record.
func (t Table) Forget(name string) error {
	err := os.Remove(t.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Signal sends a signal to the process if it is still the one recorded.
func (p Process) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return syscall.Kill(p.PID, sig)
}

func (p Process) end(ctx context.Context, grace time.Duration) error {
	for _, try := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, 5 * time.Second}} {
		if !p.Alive() {
			return nil
		}
		_ = syscall.Kill(p.PID, syscall.SIGCONT) // a stopped process does not hear SIGTERM
		_ = syscall.Kill(p.PID, try.sig)
		if p.gone(ctx, try.wait) {
			return nil
		}
	}
	return fmt.Errorf("process %d (%s) does not end", p.PID, p.Name)
}

func (p Process) gone(ctx context.Context, within time.Duration) bool {
	for end := time.Now().Add(within); time.Now().Before(end); {
		if !p.Alive() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	return !p.Alive()
}

// Alive says whether the recorded process still runs.
func (p Process) Alive() bool {
	st, err := stat(p.PID)
	return err == nil && st.start == p.Start && !st.ended()
}

type status struct {
	state   string
	threads string
	start   string
}

// ended says whether this is only the memory of a process. A zombie with
// threads is in the middle of an execve that its first thread did not make.
func (s status) ended() bool { return s.state == "X" || s.state == "Z" && s.threads <= "1" }

func stat(pid int) (status, error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return status{}, err
	}
	return parseStat(string(content))
}

// parseStat reads fields 3 (state), 20 (threads) and 22 (start time) of
// proc_pid_stat(5).
// Field 2 is the program's name in parentheses, which may hold anything, so
// counting begins behind the last one.
func parseStat(s string) (status, error) {
	_, rest, ok := strings.Cut(s[max(strings.LastIndexByte(s, ')'), 0):], ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return status{}, fmt.Errorf("unreadable process status %q", s)
	}
	return status{state: fields[0], threads: fields[17], start: fields[19]}, nil
}
