// Package peercred says who is at the other end of a unix socket, as the kernel
// knows it. What follows from that is the caller's.
package peercred

// Credentials are those of the process at the other end when it connected.
type Credentials struct {
	UID int
	// PID is 0 where the system does not say.
	PID int
	// Groups are all of the process's, the primary one included.
	Groups []int
}
