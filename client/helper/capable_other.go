//go:build !linux

package helper

// Capable says whether this process may change the host's network, root or not.
func Capable() bool { return false }
