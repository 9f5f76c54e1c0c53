package sandbox

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processes are the commands that run, and whatever they leave behind: the agent reaps
// both.
type processes struct {
	mu    sync.Mutex
	byPID map[int]chan<- Exit
	byID  map[uint64]*process
}

type process struct {
	pid   int
	group bool // it has a process group of its own
}

// newProcesses makes this process the one that orphans fall to.
func newProcesses() (*processes, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	p := &processes{byPID: map[int]chan<- Exit{}, byID: map[uint64]*process{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			p.reap()
		}
	}()
	return p, nil
}

func (p *processes) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		ended := p.byPID[pid]
		if ended == nil || !ws.Exited() && !ws.Signaled() {
			continue
		}
		delete(p.byPID, pid)
		e := Exit{Code: ws.ExitStatus()}
		if ws.Signaled() {
			e = Exit{Signal: int(ws.Signal())}
		}
		ended <- e
	}
}

// start starts a command with the three files. The channel gets how it ended.
//
// It is started by a thread that has given up every capability, and the way to ever get
// one, and that lives as long as the command: the kernel kills the command should the
// thread end first, that is when the agent is killed.
func (p *processes) start(id uint64, c Command, files descriptors) (<-chan Exit, error) {
	started := make(chan error)
	out := make(chan Exit, 1)
	go func() {
		runtime.LockOSThread() // for good: what it has given up nobody else is to miss
		if err := dropPrivileges(); err != nil {
			started <- err
			return
		}
		ended := make(chan Exit, 1)
		p.mu.Lock()
		pid, err := syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{
			Dir: c.Dir, Env: c.Env, Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
			Sys: &syscall.SysProcAttr{Setpgid: !c.Foreground, Pdeathsig: syscall.SIGKILL},
		})
		if err == nil {
			p.byPID[pid], p.byID[id] = ended, &process{pid, !c.Foreground}
		}
		p.mu.Unlock()
		started <- err
		if err != nil {
			return
		}
		e := <-ended
		p.mu.Lock()
		delete(p.byID, id)
		p.mu.Unlock()
		out <- e
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return out, nil
}

// signal sends a signal to a command, and to its process group if that is its own.
func (p *processes) signal(id uint64, s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.byID[id]
	switch {
	case one == nil:
	case one.group:
		_ = syscall.Kill(-one.pid, s)
	default:
		_ = syscall.Kill(one.pid, s)
	}
}

// dropPrivileges takes every capability from this thread, and from what it starts
// whoever it is and whatever it runs: under no_new_privs execve gives none. The bounding
// set would add nothing to that, and without it the kernel does not start programs that
// are to get one, such as ping, which does without where it must.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl no_new_privs", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl ambient", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0); e != 0 {
		return os.NewSyscallError("capset", e)
	}
	return nil
}

// killAll ends every process that is a child of this one, until there is none: those
// whose parents have ended become its children.
func (p *processes) killAll() {
	for range 100 {
		all := children(os.Getpid())
		if len(all) == 0 {
			return
		}
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		p.reap()
		time.Sleep(time.Millisecond) // the kernel hands orphans on
	}
}

// children are the processes whose parent is pid, but for those that have ended.
func children(pid int) []int {
	entries, _ := os.ReadDir("/proc")
	var all []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// PID (NAME) STATE PPID ..., and a NAME may have anything in it.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		f := strings.Fields(rest)
		if len(f) > 1 && f[0] != "Z" && f[1] == strconv.Itoa(pid) {
			all = append(all, n)
		}
	}
	return all
}
