// Package remote is a helper.Session in another process: podnet-helper makes the
// changes, and whoever asks for them needs no privilege. What this process can do
// itself, reading the host's networks and asking for names, it does.
package remote

import (
	"podnet.dev/client/helper/wire"
	"podnet.dev/client/router"
)

// NoHelperError says that no podnet-helper answers.
type NoHelperError struct{ Err error }

func (e *NoHelperError) Error() string { return "no podnet-helper answers: " + e.Err.Error() }
func (e *NoHelperError) Unwrap() error { return e.Err }

// Error is what the helper says is wrong, with the code and the hint that the error
// had over there.
type Error struct{ wire.Trouble }

func (e *Error) Error() string { return e.Message }
func (e *Error) Code() string  { return e.Trouble.Code }
func (e *Error) Hint() string  { return e.Trouble.Hint }

// fault is a trouble as the error that a session in this process would have given.
func fault(t wire.Trouble) error {
	if c := t.Conflict; c != nil {
		return &router.ConflictError{Prefix: c.Prefix, Interface: c.Interface, Network: c.Network}
	}
	return &Error{t}
}

// goneError says that the helper's process has ended, or our connection to it.
type goneError struct{ err error }

func (e *goneError) Error() string { return "podnet-helper has gone: " + e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }
func (e *goneError) Code() string  { return "privilege" }
func (e *goneError) Hint() string {
	return "podnet connect, once it is back; journalctl -u podnet-helper says why it went"
}
