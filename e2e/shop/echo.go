package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// echoTCP sends everything back. A client that closes its sending half gets
// the rest of its bytes and then the end, so half-closed connections are seen
// to work.
func echoTCP(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return endOf(ctx, err)
		}
		conns.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			_, _ = io.Copy(conn, conn) // ends with the client, whichever way it goes
			_ = conn.(*net.TCPConn).CloseWrite()
		})
	}
}

// echoUDP sends every datagram back to where it came from.
func echoUDP(ctx context.Context, pc net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = pc.Close() })
	defer stop()
	buf := make([]byte, 65535)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return endOf(ctx, err)
		}
		_, _ = pc.WriteTo(buf[:n], from) // a lost echo is UDP's business
	}
}

// endOf is nil when err only says that ctx ended the service.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
