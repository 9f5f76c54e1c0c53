//go:build !linux

// Package rawtcp gives TCP connections; only on Linux they are other than those of
// package net.
package rawtcp

import "net"

// Conn is a TCP connection.
type Conn struct{ *net.TCPConn }

// New returns a Conn that owns c from now on.
func New(c *net.TCPConn) *Conn { return &Conn{c} }
