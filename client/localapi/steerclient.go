package localapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"podnet.dev/internal/httpjson"
)

// Steer asks for a rule and calls event with each line, the error included. It
// returns the rule once it is ready, or the *Error that ended the attempt. A rule
// that is held goes on telling: Steer returns then when ctx is done, or with what
// ended the rule. Cancelling ctx before the rule is ready gives it up.
func (c *Client) Steer(ctx context.Context, req SteerRequest, event func(SteerEvent)) (SteerRule, error) {
	return c.steer(ctx, "/v1/steer", req, req.Hold, event)
}

// steer asks for something that is answered by SteerEvents.
func (c *Client) steer(ctx context.Context, path string, req any, held bool, event func(SteerEvent)) (SteerRule, error) {
	resp, err := c.send(ctx, http.MethodPost, path, req)
	if err != nil {
		return SteerRule{}, err
	}
	var rule *SteerRule
	var failed *Error
	err = httpjson.ReadLines(resp, func(e SteerEvent) error {
		event(e)
		switch e.Type {
		case SteerReady, SteerChanged:
			rule = e.Rule
		case SteerFailed:
			failed = e.Error
		}
		return nil
	})
	var refused *Error
	switch {
	case failed != nil:
		return SteerRule{}, failed
	case errors.As(err, &refused):
		return SteerRule{}, refused
	case ctx.Err() != nil:
		return SteerRule{}, ctx.Err()
	case err != nil, rule == nil, held:
		return SteerRule{}, &Error{Code: CodeDaemon, Message: "the daemon went away, and the rule with it", Hint: "podnet logs may say why"}
	}
	return *rule, nil
}

// Steered lists this machine's rules, or with all everybody's in the namespace;
// "" means every namespace.
func (c *Client) Steered(ctx context.Context, all bool, namespace string) (SteerList, error) {
	var l SteerList
	path := "/v1/steer"
	if all {
		path += "?" + url.Values{"all": {"1"}, "namespace": {namespace}}.Encode()
	}
	return l, c.do(ctx, http.MethodGet, path, nil, &l)
}

// StopSteering ends a rule of this machine, or all with the name "".
func (c *Client) StopSteering(ctx context.Context, name string) (SteerStopped, error) {
	var s SteerStopped
	path := "/v1/steer?all=1"
	if name != "" {
		path = "/v1/steer/" + url.PathEscape(name)
	}
	return s, c.do(ctx, http.MethodDelete, path, nil, &s)
}

// Requests calls line with the last requests that a rule took and, to follow,
// with those that come, until ctx is done, line fails or the rule ends; the last
// is no error.
func (c *Client) Requests(ctx context.Context, rule string, follow bool, line func(SteeredRequest) error) error {
	path := "/v1/steer/" + url.PathEscape(rule) + "/requests"
	if follow {
		path += "?follow=1"
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return c.lines(ctx, httpjson.ReadLines(resp, line))
}

// RevokeSteering deletes somebody's rule.
func (c *Client) RevokeSteering(ctx context.Context, req RevokeRequest) (SteerStopped, error) {
	var s SteerStopped
	return s, c.do(ctx, http.MethodPost, "/v1/steer/revoke", req, &s)
}
