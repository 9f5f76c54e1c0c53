package steering

import (
	"context"
	"errors"
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
)

// Inspect is what the last connections carried that a rule took, newest last.
func (m *Manager) Inspect(name string) ([]localapi.Inspection, error) {
	if err := m.inspected(name); err != nil {
		return nil, err
	}
	out := []localapi.Inspection{}
	for _, i := range m.Relay.Inspected(name) {
		out = append(out, inspection(i))
	}
	return out, nil
}

// Replay sends a request that a rule took to its local program once more.
func (m *Manager) Replay(ctx context.Context, name string, req localapi.ReplayRequest) (localapi.Inspection, error) {
	if err := m.inspected(name); err != nil {
		return localapi.Inspection{}, err
	}
	i, err := m.Relay.Replay(ctx, name, req.Connection, req.Exchange)
	switch {
	case errors.Is(err, relay.ErrForgotten):
		return localapi.Inspection{}, &localapi.Error{Code: localapi.CodeNotFound, Message: err.Error(), Hint: "podnet steer inspect " + name + " shows those that are", Status: http.StatusNotFound}
	case errors.Is(err, relay.ErrNotReplayable):
		return localapi.Inspection{}, &localapi.Error{Code: localapi.CodeUsage, Message: err.Error(), Hint: "of each direction of a connection 64 KiB are kept", Status: http.StatusBadRequest}
	case err != nil:
		return localapi.Inspection{}, &localapi.Error{Code: localapi.CodeUnreachable, Message: err.Error(), Hint: "does the program listen there?", Status: http.StatusBadGateway}
	}
	return inspection(i), nil
}

// inspected refuses rules that there are not, and those that are not inspected.
func (m *Manager) inspected(name string) error {
	m.mu.Lock()
	r, err := m.find(name)
	m.mu.Unlock()
	if err == nil && !r.req.Inspect {
		err = &localapi.Error{Code: localapi.CodeUsage, Message: "the rule " + name + " is not inspected",
			Hint: "podnet steer stop " + name + ", and steer again with --inspect", Status: http.StatusBadRequest}
	}
	return err
}

func inspection(i relay.Inspection) localapi.Inspection {
	c := localapi.Inspection{Time: i.Began, Pod: i.Pod, Over: i.Over, Forgotten: i.Forgotten, Exchanges: []localapi.Exchange{}}
	if !i.Replay.IsZero() {
		c.Replay = &i.Replay
	}
	for _, e := range i.Exchanges {
		c.Exchanges = append(c.Exchanges, localapi.Exchange{Time: e.Began, In: e.In, InMore: e.InMore, Out: e.Out, OutMore: e.OutMore})
	}
	return c
}
