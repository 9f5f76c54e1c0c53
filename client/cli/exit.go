// Package exit says how a command ends: its statuses, and the errors that have one.
package cli

import (
	"context"
	"errors"
	"fmt"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Exit statuses; they are documented and stay.
const (
	exitOK           = 0
	exitGeneric      = 1
	exitUsage        = 2
	exitNotConnected = 3
	exitCredentials  = 4
	exitTimeout      = 5
	exitUnreachable  = 6
	exitDaemon       = 7
	exitConflict     = 8 // also: somebody else's rule is in the way
	exitDNS          = 9 // also: status --strict, names do not resolve
	exitDeploy       = 10
	exitInterrupted  = 130
)

// exitStatus is the status of an error.
func exitStatus(err error) int {
	var own *coded
	if errors.As(err, &own) {
		return own.status
	}
	switch httpjson.FromError(err).Code {
	case localapi.CodeUsage:
		return exitUsage
	case localapi.CodeNotConnected:
		return exitNotConnected
	case localapi.CodeCredentials, localapi.CodeForbidden, localapi.CodeEnded:
		return exitCredentials
	case localapi.CodeTimeout:
		return exitTimeout
	case localapi.CodeUnreachable:
		return exitUnreachable
	case localapi.CodeDaemon, localapi.CodePrivilege:
		return exitDaemon
	case localapi.CodeConflict:
		return exitConflict
	case localapi.CodeDNS:
		return exitDNS
	case localapi.CodeDeploy:
		return exitDeploy
	case localapi.CodeCanceled:
		return exitInterrupted
	}
	return exitGeneric
}

// exitError ends a command with a status and no further words.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// coded is an error with a status of its own, whatever its kind.
type coded struct {
	status int
	error
}

func (c *coded) Unwrap() error { return c.error }

// withStatus gives an error a status of its own.
func withStatus(err error, status int) error { return &coded{status, err} }

// hasStatus reports whether an error says by itself which status it has.
func hasStatus(err error) bool {
	var quiet exitError
	var own *coded
	return errors.As(err, &quiet) || errors.As(err, &own)
}

// unlessInterrupted takes an interrupt for the end that it is.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// usage makes an error of a wrong command line.
func usage(format string, args ...any) error {
	return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: "podnet --help"}
}

// logged is an error about which a log file may say more.
type logged struct {
	error
	file string
}

func (l *logged) Unwrap() error { return l.error }

// withLogFile adds a log file to an error.
func withLogFile(err error, file string) error { return &logged{err, file} }

// logOf is the log file of an error; "": it has none.
func logOf(err error) string {
	var l *logged
	if errors.As(err, &l) {
		return l.file
	}
	return ""
}
