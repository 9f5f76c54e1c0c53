package namespaced

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"podnet.dev/internal/desk"
)

// atOnce bounds the Calls that are served at the same time; who comes beyond that waits
// to be accepted.
const atOnce = 64

// serveDesk answers Calls until ctx ends, and returns when the last one is answered.
func serveDesk(ctx context.Context, l net.Listener, answer func(desk.Call) desk.Answer) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	slots := make(chan struct{}, atOnce)
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		slots <- struct{}{}
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			<-slots
			select { // out of file descriptors, mostly
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		calls.Go(func() {
			defer func() { <-slots }()
			serveCall(c, answer)
		})
	}
}

// serveCall answers the one Call of a connection.
func serveCall(c net.Conn, answer func(desk.Call) desk.Answer) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(desk.Patience))
	var call desk.Call
	if err := desk.Read(c, &call); err != nil {
		if !errors.Is(err, io.EOF) {
			_ = desk.Write(c, desk.Answer{Version: desk.Version, Error: &desk.Error{Code: desk.CodeInvalid, Message: "the call cannot be read"}})
		}
		return
	}
	if err := call.Check(); err != nil {
		why, ok := errors.AsType[*desk.Error](err)
		if !ok {
			why = &desk.Error{Code: desk.CodeInvalid, Message: err.Error()}
		}
		_ = desk.Write(c, desk.Answer{Version: desk.Version, Error: why})
		return
	}
	_ = desk.Write(c, answer(call))
	// The laptop hangs up. Were it us, the port-forward could lose the end.
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = c.Read(make([]byte, 1))
}
