package client

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/gate"
	"podnet.dev/client/localapi"
	"podnet.dev/client/steering"
)

// What the host sends into the cluster leaves from the gateway, or from a pod of the
// user's choice. In the second case nothing leaves while there is no such pod: whoever
// asked for one must never be seen as the gateway.

// guarded puts the gate before the host's device, and before it what keeps the host to
// addresses that it was given.
func (s *Session) guarded(host tun.Device) tun.Device {
	return gate.New(s.booked(host), s.mute, func(to netip.AddrPort) bool {
		return to.Port() == 53 && slices.Contains(*s.resolvers.Load(), to.Addr())
	})
}

// mute says that what the host sends may not leave.
func (s *Session) mute() bool {
	from := steering.FromGateway
	if m := s.sender.Load(); m != nil {
		from = m.Sending()
	}
	return from == steering.FromNowhere || s.Request.As != "" && from != steering.FromPod
}

// identify waits until what we send leaves from a pod of whom was asked for, and has
// the session end when that is over for good.
func (s *Session) identify(ctx context.Context) (string, error) {
	if err := s.cannot("have a pod send for this machine"); err != nil {
		return "", err
	}
	if s.steering == nil {
		return "", &localapi.Error{Code: localapi.CodeTooOld, Message: "this cluster has no pods to send from", Hint: "podnet connect without --as"}
	}
	life, cancel := context.WithCancel(context.Background())
	ready, over := make(chan string, 1), make(chan error, 1)
	go func() {
		isReady := false
		err := s.steering.As(life, localapi.AsRequest{Target: s.Request.As}, func(e localapi.SteerEvent) {
			if e.Type == localapi.SteerReady {
				isReady = true
				ready <- e.Text
			}
		})
		if isReady && life.Err() == nil {
			s.breaks(&EndedError{"nothing leaves from " + s.Request.As + " any more", err})
		}
		over <- err
	}()
	s.undo.add("the identity", ending(cancel, over))
	select {
	case text := <-ready:
		return text, nil
	case err := <-over:
		over <- nil
		return "", cmp.Or(err, context.Canceled)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// As has what this machine sends leave from a pod; see steering.Manager.
func (s *Session) As(ctx context.Context, req localapi.AsRequest, say func(localapi.SteerEvent)) error {
	m, err := s.steered()
	if err == nil {
		err = s.ownDevice("nothing can leave as a pod")
	}
	if err != nil {
		return err
	}
	if err := s.sameCluster(req.Kube); err != nil {
		return err
	}
	return m.As(ctx, req, say)
}

// identity is the pod that we send from, and what is to be said where there is none.
func identity(m *steering.Manager, ready bool) (*localapi.Identity, []localapi.Warning) {
	if m == nil {
		return nil, nil
	}
	as := m.Identity()
	if as == nil || as.Pod != "" || !ready {
		return as, nil
	}
	return as, []localapi.Warning{{Code: "identity", Severity: "high", Text: "what this machine sends is to leave from " + as.Target + " and does not get through: " + as.Text, Hint: as.Hint}}
}
