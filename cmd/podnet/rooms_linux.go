package main

import (
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"podnet.dev/client/cli"
	"podnet.dev/client/rooms"
	"podnet.dev/client/sandbox"
)

// withRooms gives the command line what only Linux has.
func withRooms(env *cli.Env) {
	env.Rooms, env.Privileged, env.Foreground = rooms.New(logger(os.Stderr, slog.LevelError)), sandbox.MayTUN, foreground
}

// foreground says whether standard input is a terminal that has this process's group in
// front.
func foreground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
