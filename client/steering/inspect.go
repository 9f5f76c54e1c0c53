package steering

import (
	"net/http"

	"podnet.dev/client/localapi"
)

// Inspect is what the last connections carried that a rule took, newest last.
func (m *Manager) Inspect(name string) ([]localapi.Inspection, error) {
	m.mu.Lock()
	r, err := m.find(name)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if !r.req.Inspect {
		return nil, &localapi.Error{Code: localapi.CodeUsage, Message: "the rule " + name + " is not inspected",
			Hint: "podnet steer stop " + name + ", and steer again with --inspect", Status: http.StatusBadRequest}
	}
	out := []localapi.Inspection{}
	for _, i := range m.Relay.Inspected(name) {
		c := localapi.Inspection{Time: i.Began, Pod: i.Pod, Over: i.Over, Forgotten: i.Forgotten, Exchanges: []localapi.Exchange{}}
		for _, e := range i.Exchanges {
			c.Exchanges = append(c.Exchanges, localapi.Exchange{Time: e.Began, In: e.In, InMore: e.InMore, Out: e.Out, OutMore: e.OutMore})
		}
		out = append(out, c)
	}
	return out, nil
}
