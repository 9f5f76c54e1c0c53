//go:build !linux

package agent

// harden does nothing: agents run on Linux only.
func harden() error { return nil }
