// Package boot brings the lab up and takes it down: it is where the plan of
// the network, the machines, the processes and Kubernetes meet.
package boot

import (
	"context"
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

	"podnet.dev/e2e/lab/internal/kube"
	"podnet.dev/e2e/lab/internal/machine"
	"podnet.dev/e2e/lab/internal/proc"
	"podnet.dev/e2e/lab/internal/report"
	"podnet.dev/e2e/lab/internal/router"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// Verbs of this program that it runs itself with.
const (
	VerbEnter = "_enter" // NETNS HOLDER ARGV...
	VerbHold  = "_hold"  // MACHINE
	VerbWire  = "_wire"  // MACHINE
	VerbSTUN  = "_stun"
)

// Lab is a lab that is up, or about to be.
type Lab struct {
	State  state.Dir
	Record state.Record
	Plan   topology.Lab
	Report *report.Report
	self   string
}

// Open finds the lab that is up.
func Open(dir state.Dir, r *report.Report) (*Lab, error) {
	record, plan, err := dir.Load()
	if err != nil {
		return nil, err
	}
	var traffic router.State
	if err := dir.ReadJSON(routerFile, &traffic); err != nil {
		return nil, err
	}
	if plan, err = plan.WithMoved(traffic.Moved); err != nil {
		return nil, err
	}
	return newLab(dir, record, plan, r)
}

func newLab(dir state.Dir, record state.Record, plan topology.Lab, r *report.Report) (*Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &Lab{State: dir, Record: record, Plan: plan, Report: r, self: self}, nil
}

// Cluster is the lab's Kubernetes.
func (l *Lab) Cluster() kube.Cluster {
	return kube.Cluster{State: l.State, Lab: l.Plan, Bin: l.Record.Bin, Flat: onOverlay(string(l.State))}
}

// onOverlay tells whether a folder is on an overlay file system, which cannot
// carry another one's writable layer.
func onOverlay(dir string) bool {
	const overlayMagic = 0x794c7630
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && st.Type == overlayMagic
}

// holder is the name of the process that holds a machine's namespaces.
func holder(m string) string { return "machine-" + m }

// Place is where programs of a machine run: one of the plan's, "router", or
// MACHINE-edge.
func (l *Lab) Place(name string) (machine.Place, error) {
	if name == string(topology.Router) {
		return machine.Place{NS: topology.RouterNS}, nil
	}
	if of, ok := strings.CutSuffix(name, "-edge"); ok {
		m, err := l.Plan.Machine(of)
		return machine.Place{NS: m.EdgeNS()}, err
	}
	m, err := l.Plan.Machine(name)
	if err != nil {
		return machine.Place{}, err
	}
	p, err := l.State.Procs().Get(holder(m.Name))
	if err != nil || !p.Alive() {
		return machine.Place{}, fmt.Errorf("machine %s is down (run \"lab up\")", m.Name)
	}
	return machine.Place{NS: m.NS(), Holder: p.PID}, nil
}

// start runs a program on a machine, detached.
func (l *Lab) start(name, on string, env, argv []string) (proc.Process, error) {
	place, err := l.Place(on)
	if err != nil {
		return proc.Process{}, err
	}
	s := proc.Spec{
		Name: name, Env: env, Log: l.State.Log(name),
		Argv: append([]string{l.self, VerbEnter, place.NS, strconv.Itoa(place.Holder)}, argv...),
	}
	return l.State.Procs().Start(s, nil)
}

// hold starts the process that is a machine, and waits until it is furnished.
func (l *Lab) hold(m topology.Machine) error {
	s := proc.Spec{
		Name: holder(m.Name), Log: l.State.Log(holder(m.Name)),
		Argv: []string{l.self, VerbEnter, m.NS(), "0", l.self, VerbHold, m.Name},
		Env:  []string{"PODNET_LAB_STATE=" + string(l.State)},
	}
	return l.startReady(s, func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS
	})
}

// startReady starts one of this program's own long-running verbs and waits
// until it says, by sayReady, that it is ready.
func (l *Lab) startReady(s proc.Spec, before func(*exec.Cmd)) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	_, err = l.State.Procs().Start(s, func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
		before(cmd)
	})
	theirs.Close()
	if err != nil {
		return err
	}
	_ = ready.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, len(readyWord))
	if n, _ := ready.Read(buf); string(buf[:n]) != readyWord {
		said, _ := os.ReadFile(s.Log)
		return fmt.Errorf("%s does not start: %s", s.Name, strings.TrimSpace(string(said)))
	}
	return nil
}

const readyWord = "ready"

func sayReady() error {
	ready := os.NewFile(3, "ready")
	defer ready.Close()
	_, err := ready.WriteString(readyWord)
	return err
}

// Hold is what the process behind VerbHold does: it never returns unless it
// fails.
func Hold(dir state.Dir, name string) error {
	_, plan, err := dir.Load()
	if err != nil {
		return err
	}
	m, err := plan.Machine(name)
	if err != nil {
		return err
	}
	c := machine.Computer{State: dir, Lab: plan, Machine: m}
	if plan.Options.Resolved && m.Kind == topology.Laptop {
		c.Resolved = filepath.Join(string(dir), "resolved")
	}
	if err := c.Furnish(); err != nil {
		return err
	}
	if err := sayReady(); err != nil {
		return err
	}
	// Killed when the lab goes down; until then the namespaces stay.
	for {
		_ = syscall.Pause()
	}
}

// eventually asks until the answer is yes, every 50 ms, for at most within.
func eventually(ctx context.Context, within time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", within, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, fs.ErrNotExist)
}
