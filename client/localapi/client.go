package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"podnet.dev/internal/httpjson"
)

// Host is the Host header of this API; a name that no resolver knows, so that
// a request from a browser cannot carry it.
const Host = "podnet.local-api"

// ErrNoDaemon is returned when nothing listens on the socket.
var ErrNoDaemon = errors.New("the podnet daemon is not running")

// ErrDaemonEnded is returned when the daemon was there and ended before it had answered:
// it was killed, or has failed. Whether it had done what it was asked for nobody knows.
var ErrDaemonEnded error = &Error{Code: CodeDaemon, Message: "the daemon ended before it had answered", Hint: "podnet logs may say why; podnet status says what is connected"}

// Client speaks to one daemon.
type Client struct {
	socket  string
	session string // that the calls are about; "": the primary
	http    *http.Client
}

// NewClient makes a client of the daemon behind the unix socket. It does not
// connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: 2 * time.Second}
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil && !isOurs(conn) { // a request may have the caller's whole environment in it
			_ = conn.Close()
			return nil, fs.ErrPermission
		}
		return conn, err
	}
	return &Client{socket, "", &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Version asks the daemon who it is.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	return v, c.do(ctx, http.MethodGet, "/v1/version", nil, &v)
}

// Status asks for everything there is to know.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Disconnect ends a session, that of For or the only one, and returns when the
// host is as it was before. Where there are several it is an error of CodeUsage
// not to say which.
func (c *Client) Disconnect(ctx context.Context) (DisconnectResult, error) {
	var r DisconnectResult
	return r, c.do(ctx, http.MethodPost, "/v1/disconnect", struct{}{}, &r)
}

// DisconnectAll ends every session.
func (c *Client) DisconnectAll(ctx context.Context) (DisconnectResult, error) {
	var r DisconnectResult
	return r, c.do(ctx, http.MethodPost, "/v1/disconnect?all=1", struct{}{}, &r)
}

// LetGo ends the session that the caller holds, as Disconnect does, unless others
// have it as well.
func (c *Client) LetGo(ctx context.Context) (DisconnectResult, error) {
	var r DisconnectResult
	return r, c.do(ctx, http.MethodPost, "/v1/disconnect?held=1", struct{}{}, &r)
}

// Connect asks for a session and calls event with each line of progress, the
// error included. It returns the Status of the session once ready, or the
// *Error that ended the attempt. Cancelling ctx gives the attempt up. A session that
// is held lasts as long as the call, which returns with its end or that of ctx.
func (c *Client) Connect(ctx context.Context, req ConnectRequest, event func(Event)) (Status, error) {
	resp, err := c.send(ctx, http.MethodPost, "/v1/connect", req)
	if err != nil {
		return Status{}, err
	}
	var status *Status
	var failed *Error
	err = httpjson.ReadLines(resp, func(e Event) error {
		event(e)
		switch e.Type {
		case EventReady:
			status = e.Status
		case EventError:
			failed = e.Error
		}
		return nil
	})
	var refused *Error
	switch {
	case failed != nil:
		return Status{}, failed
	case errors.As(err, &refused):
		return Status{}, refused
	case ctx.Err() != nil:
		return Status{}, ctx.Err()
	case err != nil:
		return Status{}, &Error{Code: CodeDaemon, Message: "the daemon went away while connecting: " + err.Error()}
	case status == nil:
		return Status{}, &Error{Code: CodeDaemon, Message: "the daemon went away while connecting"}
	case req.Hold:
		return *status, &Error{Code: CodeEnded, Message: "the session is over", Hint: "podnet status may say why"}
	}
	return *status, nil
}

// Events calls event with what happens to the daemon's sessions, until ctx is
// done, event fails or the daemon ends; the last is no error. It begins with
// what came after the event number since, as far as the daemon remembers: with
// a Status' Seq, with what happened after that Status.
func (c *Client) Events(ctx context.Context, since int64, event func(Event) error) error {
	resp, err := c.send(ctx, http.MethodGet, "/v1/events?since="+strconv.FormatInt(since, 10), nil)
	if err != nil {
		return err
	}
	return c.lines(ctx, httpjson.ReadLines(resp, event))
}

// Doctor asks for an examination and calls finding with each result, in the
// order of the groups. Cancelling ctx gives it up.
func (c *Client) Doctor(ctx context.Context, req DoctorRequest, finding func(Finding)) error {
	resp, err := c.send(ctx, http.MethodPost, "/v1/doctor", req)
	if err != nil {
		return err
	}
	return c.lines(ctx, httpjson.ReadLines(resp, func(f Finding) error { finding(f); return nil }))
}

// lines makes one of our errors of what ended a stream of lines.
func (c *Client) lines(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case hungUp(err):
		return &Error{Code: CodeDaemon, Message: "the daemon went away", Hint: "podnet logs may say why"}
	}
	return err
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	if err := httpjson.Response(resp, out); !hungUp(err) {
		return err
	}
	return ErrDaemonEnded
}

// hungUp says whether an error is the end of a connection by the other side.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	if c.session != "" {
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		path += separator + url.Values{"session": {c.session}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+Host+path, &body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNoDaemon
	case errors.Is(err, fs.ErrPermission):
		return nil, &Error{Code: CodeDaemon, Message: fmt.Sprintf("the socket %s belongs to somebody else", c.socket), Hint: "--socket or XDG_RUNTIME_DIR names a folder of your own for it"}
	case hungUp(err):
		return nil, ErrDaemonEnded
	}
	return nil, &Error{Code: CodeDaemon, Message: fmt.Sprintf("talk to the daemon: %v", err)}
}
