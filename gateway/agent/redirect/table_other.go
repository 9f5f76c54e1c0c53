//go:build !linux

package redirect

import (
	"errors"
	"runtime"
	"syscall"
)

// Table is the agent's table; only Linux has it.
type Table struct{}

// Open returns an *UnsupportedError.
func Open(string, uint32) (*Table, error) { return nil, unsupported() }

// Set returns an *UnsupportedError.
func (t *Table) Set([]Port) error { return unsupported() }

// Translates returns nil: there is no table.
func (t *Table) Translates() error { return nil }

// Close does nothing.
func (t *Table) Close() error { return nil }

// Remove does nothing: there is no table.
func Remove(string) error { return nil }

// ControlListener does nothing.
func ControlListener(string, string, syscall.RawConn) error { return nil }

// ControlDialer does nothing.
func ControlDialer(string, string, syscall.RawConn) error { return nil }

func unsupported() error { return &UnsupportedError{errors.New(runtime.GOOS + " has no nftables")} }
