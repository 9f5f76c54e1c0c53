//go:build !linux

package helper

// StateDir is base: there is one network.
func StateDir(base string) string { return base }
