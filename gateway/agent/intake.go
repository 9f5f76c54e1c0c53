package agent

import (
	"errors"

	"podnet.dev/gateway/agent/redirect"
	"podnet.dev/gateway/agent/serve"
	"podnet.dev/internal/steer"
)

// intake is how what clients send comes to a worker.
type intake interface {
	// take takes in what is sent to exactly these ports from now on, as far as it
	// can, and returns those that it does. It is called every redirect.RefreshEvery
	// at least.
	take(ports []serve.PortKey) ([]serve.PortKey, error)
}

// redirected takes in what the kernel redirects in the worker's pod.
type redirected struct {
	serve *serve.Server
	id    string
	gid   uint32

	table   *redirect.Table // nil: there is none
	emptied bool            // it redirects nothing, since the step before
}

// openRedirected makes the table at once, so that it is known whether there can
// be one.
func openRedirected(id string, gid uint32) (*redirected, error) {
	t, err := redirect.Open(id, gid)
	if err != nil {
		return nil, err
	}
	return &redirected{id: id, gid: gid, table: t}, nil
}

// translates says why addresses of TCP are translated, if they are.
func (in *redirected) translates() error {
	if in.table == nil {
		return nil
	}
	return in.table.Translates()
}

func (in *redirected) take(ports []serve.PortKey) ([]serve.PortKey, error) {
	redirects, trouble := in.serve.Set(ports)
	if err := in.redirect(redirects); err != nil {
		return nil, errors.Join(trouble, err)
	}
	var taken []serve.PortKey
	for _, p := range redirects {
		k := serve.PortKey{Protocol: steer.TCP, Port: p.From}
		if p.Protocol == redirect.UDP {
			k.Protocol = steer.UDP
		}
		taken = append(taken, k)
	}
	return taken, trouble
}

// redirect has exactly these ports redirected. There is a table only while it
// redirects something, or translates addresses for connections that are open:
// a pod whose laptops sleep is as it was before.
func (in *redirected) redirect(ports []redirect.Port) (err error) {
	switch none := len(ports) == 0; {
	case none && in.table == nil:
		return nil
	case none && in.emptied && in.serve.Conns() == 0:
		t := in.table
		in.table = nil
		return t.Close()
	case in.table == nil:
		if in.table, err = redirect.Open(in.id, in.gid); err != nil {
			return err
		}
	}
	in.emptied = len(ports) == 0
	return in.table.Set(ports)
}

// Close removes the table.
func (in *redirected) Close() error {
	if in.table == nil {
		return nil
	}
	return in.table.Close()
}
