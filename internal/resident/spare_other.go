//go:build !linux

package resident

// discard does nothing where pages cannot be let go of.
func discard([]byte) {}
