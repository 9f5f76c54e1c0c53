package http1

import (
	"bytes"
	"net"
	"slices"

	"podnet.dev/internal/steer"
)

// forwardedFor returns a head with one more X-Forwarded-For field behind all
// others: the last one names who spoke to us.
func forwardedFor(head []byte, client net.Addr) []byte {
	addr, ok := steer.TCPAddr(client)
	if !ok {
		return head
	}
	return insertField(head, len(head)-len("\r\n"), "X-Forwarded-For", addr.Addr().String())
}

// insertAfterLine returns a head with one more field behind its first line.
func insertAfterLine(head []byte, name, value string) []byte {
	return insertField(head, bytes.IndexByte(head, '\n')+1, name, value)
}

func insertField(head []byte, at int, name, value string) []byte {
	return slices.Concat(head[:at], []byte(name+": "+value+"\r\n"), head[at:])
}
