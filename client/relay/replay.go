package relay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"podnet.dev/client/words"
)

// replayTime is how long a local program may take to answer a request once more.
const replayTime = 10 * time.Second

// What keeps a request from being replayed.
var (
	ErrForgotten     = errors.New("that request is not kept any more")
	ErrNotReplayable = errors.New("only a whole request of HTTP/1 can be replayed")
)

// noClient is the header of the PROXY protocol, version 2, of a connection that its
// maker needs for himself (section 2.2, LOCAL).
var noClient = []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")

// Replay sends a request that a rule took to its local program once more, by a
// connection of its own, and returns that when the program has answered. A connection
// and an exchange are named by the moments at which they began. The replay is among
// the Inspected from then on.
func (r *Relay) Replay(ctx context.Context, rule string, connection, exchange time.Time) (Inspection, error) {
	t := r.table.Load()
	at := slices.IndexFunc(t.rules, func(o Rule) bool { return o.Name == rule })
	if at < 0 {
		return Inspection{}, ErrForgotten
	}
	sent, more, err := find(r.Inspected(rule), connection, exchange)
	if err != nil {
		return Inspection{}, err
	}
	request, err := whole(sent)
	if err != nil || more > 0 {
		return Inspection{}, ErrNotReplayable
	}
	ctx, cancel := context.WithTimeout(ctx, replayTime)
	defer cancel()
	local, err := dialTCP(ctx, t.rules[at].Local)
	if err != nil {
		return Inspection{}, fmt.Errorf("replay: %w", err)
	}
	defer local.Close()
	i := r.state.inspect(rule, &inspection{began: time.Now(), replay: connection}, r.table.Load)
	defer i.end()
	defer context.AfterFunc(ctx, func() { _ = local.SetDeadline(time.Unix(1, 0)) })()
	i.heard(sent)
	if _, err := local.Write(sent); err != nil {
		return Inspection{}, fmt.Errorf("replay: %w", &localError{t.rules[at].Local, err})
	}
	answer(local, request, i)
	i.end()
	return i.seen(), nil
}

// answer keeps what a program answers to a request, as far as it comes.
func answer(from io.Reader, request *http.Request, i *inspection) {
	b := bufio.NewReader(io.TeeReader(from, heard(i.said)))
	for {
		resp, err := http.ReadResponse(b, request)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body) // what came is kept
		if resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return
		}
	}
}

// heard is a Writer that has a function for what it gets.
type heard func([]byte)

func (h heard) Write(b []byte) (int, error) { h(b); return len(b), nil }

// find is what the pod sent in an exchange, with the PROXY header that the local
// program wants on each connection, and how much more there was.
func find(all []Inspection, connection, exchange time.Time) (sent []byte, more int64, err error) {
	for _, i := range all {
		if !i.Began.Equal(connection) {
			continue
		}
		for n, e := range i.Exchanges {
			if !e.Began.Equal(exchange) {
				continue
			}
			if n > 0 && words.ProxyHeader(i.Exchanges[0].In) > 0 {
				return slices.Concat(noClient, e.In), e.InMore, nil
			}
			return e.In, e.InMore, nil
		}
	}
	return nil, 0, ErrForgotten
}

// whole reads a request, and makes sure that there is all of it and nothing else.
func whole(sent []byte) (*http.Request, error) {
	b := bufio.NewReader(bytes.NewReader(sent[words.ProxyHeader(sent):]))
	request, err := http.ReadRequest(b)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return nil, err
	}
	if _, err := b.ReadByte(); err == nil || request.ProtoMajor != 1 {
		return nil, ErrNotReplayable
	}
	return request, nil
}
