// Package exit says how a command ends: its statuses, and the errors that have one.
package exit

import (
	"context"
	"errors"
	"fmt"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Exit statuses; they are documented and stay.
const (
	OK           = 0
	Generic      = 1
	Usage        = 2
	NotConnected = 3
	Credentials  = 4
	Timeout      = 5
	Unreachable  = 6
	Daemon       = 7
	Conflict     = 8 // also: somebody else's rule is in the way
	DNS          = 9 // also: status --strict, names do not resolve
	Deploy       = 10
	Interrupted  = 130
)

// Of is the status of an error.
func Of(err error) int {
	var own *coded
	if errors.As(err, &own) {
		return own.status
	}
	switch httpjson.FromError(err).Code {
	case localapi.CodeUsage:
		return Usage
	case localapi.CodeNotConnected:
		return NotConnected
	case localapi.CodeCredentials, localapi.CodeForbidden, localapi.CodeEnded:
		return Credentials
	case localapi.CodeTimeout:
		return Timeout
	case localapi.CodeUnreachable:
		return Unreachable
	case localapi.CodeDaemon, localapi.CodePrivilege:
		return Daemon
	case localapi.CodeConflict:
		return Conflict
	case localapi.CodeDNS:
		return DNS
	case localapi.CodeDeploy:
		return Deploy
	case localapi.CodeCanceled:
		return Interrupted
	}
	return Generic
}

// Status ends a command with a status and no further words.
type Status int

func (e Status) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// coded is an error with a status of its own, whatever its kind.
type coded struct {
	status int
	error
}

func (c *coded) Unwrap() error { return c.error }

// With gives an error a status of its own.
func With(err error, status int) error { return &coded{status, err} }

// Own reports whether an error says by itself which status it has.
func Own(err error) bool {
	var quiet Status
	var own *coded
	return errors.As(err, &quiet) || errors.As(err, &own)
}

// UnlessInterrupted takes an interrupt for the end that it is.
func UnlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Usagef makes an error of a wrong command line.
func Usagef(format string, args ...any) error {
	return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: "podnet --help"}
}

// logged is an error about which a log file may say more.
type logged struct {
	error
	file string
}

func (l *logged) Unwrap() error { return l.error }

// WithLog adds a log file to an error.
func WithLog(err error, file string) error { return &logged{err, file} }

// LogOf is the log file of an error; "": it has none.
func LogOf(err error) string {
	var l *logged
	if errors.As(err, &l) {
		return l.file
	}
	return ""
}
