package agent

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/internal/key"
	"podnet.dev/internal/resident"
	"podnet.dev/internal/steer/control"
	"podnet.dev/internal/version"
)

const (
	// workerVariable is in the environment of a worker.
	workerVariable = "PODNET_AGENT_WORKER"
	// orderFile is the file descriptor from which a worker reads its order. Its
	// end is the end of the parent.
	orderFile = 3

	// maxRestarts is how many workers may die within restartWindow.
	maxRestarts   = 3
	restartWindow = time.Minute
	// endTime is how long a worker may take to end in order.
	endTime = 3 * time.Second

	// memoryLimit is the worker's: what an ephemeral container uses counts as the
	// pod's, and it has no limit of its own.
	memoryLimit = 48 << 20
	// maxProcs is how many CPUs the worker uses at most; of a small node's, half:
	// one that waits for what another one does, turning, takes it from the pod's
	// own program.
	maxProcs = 4
)

// The exit statuses.
const (
	exitDone    = 0 // nothing is left to do
	exitFailed  = 1
	exitUsage   = 2
	exitNoTable = 3 // of a worker: trying again would not help, as its Hello tells
)

// order is what the parent tells a worker.
type order struct {
	Key   string `json:"key"`   // private, in base64
	Again bool   `json:"again"` // a worker before it has said Hello
}

// Main is the program: the parent, or the worker that the parent started. It
// ends in order when ctx does. It returns the exit status.
func Main(ctx context.Context, args []string) int {
	hardening := harden()
	o, err := ParseOptions(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		sayFailed(o, err, "")
		return exitUsage
	case o.Version:
		fmt.Println(version.Version)
		return exitDone
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if os.Getenv(workerVariable) != "" {
		return work(ctx, o, hardening, log)
	}
	if !o.NoRedirect && os.Getgid() == 0 {
		sayFailed(o, errors.New("the agent needs a group of its own, not group 0"), "set runAsGroup of its container to a number that the pod does not use")
		return exitFailed
	}
	runtime.GOMAXPROCS(1)
	return supervise(ctx, o, args, log)
}

// sayFailed says Hello for an agent that will not be.
func sayFailed(o Options, err error, hint string) {
	_ = control.Write(os.Stdout, control.Hello{
		Podnet: control.Version, Version: version.Version, PodUID: o.PodUID, Error: err.Error(), Hint: hint,
	})
}

// supervise starts workers until one ends on purpose. The redirection of one
// that died is removed at once.
func supervise(ctx context.Context, o Options, args []string, log *slog.Logger) int {
	secret := make([]byte, key.Size)
	_, _ = rand.Read(secret) // it never fails
	ord := order{Key: base64.StdEncoding.EncodeToString(secret)}
	private, err := key.ParsePrivate(ord.Key)
	if err != nil {
		sayFailed(o, err, "")
		return exitFailed
	}
	id := tableID(private.Public())
	var deaths []time.Time
	for ; ; ord.Again = true {
		err := runWorker(ctx, args, ord)
		var exit *exec.ExitError
		switch {
		case err == nil:
			return exitDone
		case errors.As(err, &exit) && exit.ExitCode() == exitNoTable:
			return exitFailed
		}
		var removed error
		if !o.NoRedirect {
			removed = redirect.Remove(id)
		}
		if ctx.Err() != nil && removed == nil {
			return exitDone
		}
		log.Error("worker died", "err", err, "undone", removed == nil)
		now := time.Now()
		deaths = append(deaths, now)
		if len(deaths) > maxRestarts {
			deaths = deaths[len(deaths)-maxRestarts-1:]
		}
		if ctx.Err() != nil || len(deaths) > maxRestarts && now.Sub(deaths[0]) < restartWindow {
			return exitFailed
		}
	}
}

// runWorker starts a worker and waits for its end. When ctx ends, it asks the
// worker to.
func runWorker(ctx context.Context, args []string, ord order) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), workerVariable+"=1")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{read}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endTime
	err = cmd.Start()
	read.Close()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	tellErr := json.NewEncoder(write).Encode(ord)
	err = cmd.Wait()
	if cmd.ProcessState.Success() {
		return nil // also when ctx ended it
	}
	return errors.Join(err, tellErr)
}

// work is the worker's process.
func work(ctx context.Context, o Options, hardening error, log *slog.Logger) int {
	debug.SetMemoryLimit(memoryLimit)
	runtime.GOMAXPROCS(max(1, min(maxProcs, runtime.GOMAXPROCS(0)/2)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	orders := bufio.NewReader(os.NewFile(orderFile, "orders"))
	line, err := orders.ReadBytes('\n')
	var ord order
	if err == nil {
		err = json.Unmarshal(line, &ord)
	}
	clear(line)
	var private key.Private
	if err == nil {
		private, err = key.ParsePrivate(ord.Key)
	}
	if err != nil {
		log.Error("no order from the parent", "err", err)
		return exitFailed
	}
	go func() {
		_, _ = io.Copy(io.Discard, orders) // until the parent is gone
		cancel()
	}()
	go func() { _ = resident.Follow(ctx, func() int { return 0 }) }() // who comes and goes costs little here
	hello := func(h control.Hello) error {
		if !ord.Again || h.Error != "" {
			if err := control.Write(os.Stdout, h); err != nil {
				return err
			}
		}
		if hardening != nil {
			log.Warn("agent is not as guarded as it could be", "err", hardening)
		}
		return nil
	}
	switch err := run(ctx, o, private, hello, log); {
	case errors.Is(err, errNoTable):
		log.Error("no agent", "err", err)
		return exitNoTable
	case err != nil:
		log.Error("agent failed", "err", err)
		return exitFailed
	}
	return exitDone
}
