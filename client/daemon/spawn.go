package daemon

import (
	"fmt"
	"io"
	"os/exec"
)

// Spawn runs the program args in the background, as Start does, for a caller who
// wants to hear its standard output. Standard error goes to logFile.
func Spawn(logFile string, args ...string) (cmd *exec.Cmd, out io.ReadCloser, err error) {
	log := openLog(logFile)
	defer log.Close()
	cmd = exec.Command(args[0], args[1:]...)
	cmd.Stderr, cmd.SysProcAttr = log, detached() // its arguments may name files by where we are
	if out, err = cmd.StdoutPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("start %s in the background: %w", args[0], err)
	}
	return cmd, out, nil
}
