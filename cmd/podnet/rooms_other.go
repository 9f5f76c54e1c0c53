//go:build !linux

package main

import "podnet.dev/client/cli"

// withRooms does nothing: only Linux has network namespaces.
func withRooms(*cli.Env) {}
