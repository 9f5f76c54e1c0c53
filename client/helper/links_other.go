//go:build !linux

package helper

// removeLink has nothing to do: podnet makes no interfaces here yet.
func removeLink(string, int) error { return nil }
