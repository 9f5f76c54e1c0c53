package rootless

import (
	"context"
	"net"
	"sync"

	"podnet.dev/client"
	"podnet.dev/client/helper"
	"podnet.dev/client/localapi"
)

// Host is what a session has in place of the machine.
type Host interface {
	helper.Session
	// Dial is how this process reaches what the session routes.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// On connects on a host, calls ready once that is done, and returns when ctx is done or
// the session has ended: nil when ctx ended a session that was ready.
func On(ctx context.Context, host Host, session client.Config, ready func()) error {
	events, once := session.Events, sync.OnceFunc(ready)
	session.OpenHelper = func(context.Context, func(string)) (helper.Session, error) { return host, nil }
	session.Dial = host.Dial
	session.Events = func(e localapi.Event) {
		events(e)
		if e.Type == localapi.EventReady {
			once()
		}
	}
	return client.New(session).Run(ctx)
}
