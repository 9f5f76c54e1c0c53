package daemon

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"podnet.dev/client/localapi"
)

// startTime is how long a daemon may take until it answers.
const startTime = 5 * time.Second

// Start runs the program args in the background, detached from our terminal
// and session, with its output in logFile, and returns when a daemon answers
// on the socket.
func Start(ctx context.Context, socket, logFile string, args ...string) error {
	log := openLog(logFile)
	defer log.Close()
	begin := size(log)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = detached()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := localapi.NewClient(socket)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := client.Version(ctx); err == nil {
			return nil
		}
		select {
		case <-exited:
			// Somebody else's may have won the race; else say why ours died.
			if _, err := client.Version(ctx); err == nil {
				return nil
			}
			return &localapi.Error{Code: localapi.CodeDaemon, Message: "the daemon did not start: " + lastLine(logFile, begin), Hint: "the log is " + logFile}
		case <-ctx.Done():
			return &localapi.Error{Code: localapi.CodeDaemon, Message: fmt.Sprintf("the daemon does not answer on %s", socket), Hint: "the log is " + logFile}
		case <-tick.C:
		}
	}
}

// openLog opens the log file, or nothing when there is no room or no right to
// write one: a full disk must not keep anybody from connecting.
func openLog(path string) *os.File {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		_ = os.Rename(path, path+".1")
	}
	if f, err := openAppend(path); err == nil {
		return f
	}
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return f
}

// lastLine is the last thing that the daemon said after begin.
func lastLine(path string, begin int64) string {
	last := "it said nothing"
	f, err := os.Open(path)
	if err != nil {
		return last
	}
	defer f.Close()
	if _, err := f.Seek(begin, 0); err != nil {
		return last
	}
	for s := bufio.NewScanner(f); s.Scan(); {
		if s.Text() != "" {
			last = s.Text()
		}
	}
	return last
}
