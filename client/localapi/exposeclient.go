package localapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"podnet.dev/internal/httpjson"
)

// Expose asks for an exposure and calls event with each line, the error included. It
// returns the exposure once it is ready, or the *Error that ended the attempt. One
// that is held goes on telling: Expose returns then when ctx is done, or with what
// ended the exposure. Cancelling ctx before it is ready gives it up.
func (c *Client) Expose(ctx context.Context, req ExposeRequest, event func(ExposeEvent)) (Exposure, error) {
	resp, err := c.send(ctx, http.MethodPost, "/v1/expose", req)
	if err != nil {
		return Exposure{}, err
	}
	var exposure *Exposure
	var failed *Error
	err = httpjson.ReadLines(resp, func(e ExposeEvent) error {
		event(e)
		switch e.Type {
		case ExposeReady, ExposeChanged:
			exposure = e.Exposure
		case ExposeFailed:
			failed = e.Error
		}
		return nil
	})
	var refused *Error
	switch {
	case failed != nil:
		return Exposure{}, failed
	case errors.As(err, &refused):
		return Exposure{}, refused
	case ctx.Err() != nil:
		return Exposure{}, ctx.Err()
	case err != nil, exposure == nil, req.Hold:
		return Exposure{}, &Error{Code: CodeDaemon, Message: "the daemon went away, and the exposure with it", Hint: "podnet logs may say why"}
	}
	return *exposure, nil
}

// Exposed lists this machine's exposures, or with all everybody's in the namespace;
// "" means every namespace.
func (c *Client) Exposed(ctx context.Context, all bool, namespace string) (ExposeList, error) {
	var l ExposeList
	path := "/v1/expose"
	if all {
		path += "?" + url.Values{"all": {"1"}, "namespace": {namespace}}.Encode()
	}
	return l, c.do(ctx, http.MethodGet, path, nil, &l)
}

// StopExposing ends an exposure of this machine, or all with the name "". Without a
// namespace it is that of the name wherever it is, if that is one place.
func (c *Client) StopExposing(ctx context.Context, namespace, name string) (ExposeStopped, error) {
	var s ExposeStopped
	path := "/v1/expose?all=1"
	if name != "" {
		path = "/v1/expose/" + url.PathEscape(name) + "?" + url.Values{"namespace": {namespace}}.Encode()
	}
	return s, c.do(ctx, http.MethodDelete, path, nil, &s)
}
