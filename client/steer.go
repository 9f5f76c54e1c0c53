package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/client/exposing"
	"podnet.dev/client/localapi"
	"podnet.dev/client/relay"
	"podnet.dev/client/steering"
	"podnet.dev/internal/key"
	"podnet.dev/internal/tunsplit"
)

// relayed is what takes the packets for our relay address out of the tunnel, so
// that they never enter the host's network.
type relayed struct {
	*relay.Relay
	split *tunsplit.Device // nil: nothing comes to the relay
}

// answerTo makes the relay address that of a key.
func (r relayed) answerTo(k key.Public) {
	r.Relay.SetAddr(k.RelayAddress6())
	if r.split != nil {
		r.split.SetAddr(k.RelayAddress6())
	}
}

// relay puts the relay before the host's device, which the new device owns from
// then on.
func (s *Session) relay(host tun.Device) (relayed, tun.Device, error) {
	r, err := s.startRelay()
	if err != nil {
		return relayed{}, nil, errors.Join(err, host.Close())
	}
	own := s.member.private.Public()
	out := relayed{r, tunsplit.New(s.guarded(host), r.Device(), own.RelayAddress6())}
	out.answerTo(own)
	return out, out.split, nil
}

// startRelay makes the relay, for the session's time.
func (s *Session) startRelay() (*relay.Relay, error) {
	r, err := relay.New(s.Log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	s.undo.add("the relay", func(context.Context) error {
		cancel()
		return <-done
	})
	return r, nil
}

// steer starts what keeps the steering rules, where the cluster can.
func (s *Session) steer(r *relay.Relay) {
	c, ok := s.cluster.(steering.Cluster)
	if !ok {
		return
	}
	id := s.cluster.Whoami()
	m := steering.New(steering.Config{Cluster: c, Relay: r, User: id.User, Namespace: s.Request.Namespaces[0], Lease: s.leaseTime(),
		GatewayNamespace: s.Request.GatewayNamespace, Env: s.Request.Kube.Env, Log: s.Log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	s.mu.Lock()
	s.steering = m
	s.sender.Store(m)
	s.mu.Unlock()
	s.steerFor()
	s.undo.add("the steering rules", ending(cancel, done))
}

// ending cancels something that runs and waits until it is done.
func ending(cancel func(), done <-chan error) func(context.Context) error {
	return func(ctx context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-ctx.Done(): // an API server that does not answer; leases do the rest
			return ctx.Err()
		}
	}
}

// steerFor tells whose the traffic is, what is steered and what is exposed.
func (s *Session) steerFor() {
	if s.steering != nil {
		s.steering.SetMember(steering.Member{Peer: s.member.Peer, Gateways: s.member.granted.Status.Gateways})
	}
	if s.exposing != nil {
		s.exposing.SetMember(exposing.Member{Peer: s.member.Peer, Gateways: s.member.granted.Status.Gateways})
	}
}

// steered is the session's steering, when there is one.
func (s *Session) steered() (*steering.Manager, error) {
	if err := s.cannot("steer"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.steering == nil || !s.ready.Load() {
		return nil, &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session is not ready to steer", Hint: "podnet status", Status: http.StatusConflict}
	}
	return s.steering, nil
}

// canLead says why traffic cannot be led to this machine, for one who has named a
// cluster.
func (s *Session) canLead(k localapi.Kube, what string) error {
	if err := s.ownDevice(what); err != nil {
		return err
	}
	return s.sameCluster(k)
}

// sameCluster refuses a caller who means another cluster than the session's.
func (s *Session) sameCluster(k localapi.Kube) error {
	if k.Flags == nil && k.Env == nil {
		return nil
	}
	c, err := s.OpenCluster(k)
	switch {
	case err != nil && len(k.Flags) == 0:
		return nil // he names none
	case err != nil:
		return err
	}
	defer c.Redial() // which nobody will
	here, there := s.cluster.Whoami(), c.Whoami()
	if here.Server == there.Server {
		return nil
	}
	return &localapi.Error{Code: localapi.CodeConflict, Message: fmt.Sprintf("the session is with %s, and the kubeconfig means %s", here.Server, there.Server),
		Hint: "podnet connect joins that cluster, too, and --session NAME takes its session; --context names another context", Status: http.StatusConflict}
}

// Steer makes a steering rule; see steering.Manager, as for the others.
func (s *Session) Steer(ctx context.Context, req localapi.SteerRequest, say func(localapi.SteerEvent)) error {
	m, err := s.steered()
	if err == nil {
		err = s.canLead(req.Kube, "nothing can be steered")
	}
	if err != nil {
		return err
	}
	return m.Steer(ctx, req, say)
}

// Steered lists our rules, or with all everybody's in a namespace.
func (s *Session) Steered(ctx context.Context, all bool, namespace string) ([]localapi.SteerRule, error) {
	m, err := s.steered()
	switch {
	case err != nil:
		return nil, err
	case all:
		return m.Everybodys(ctx, namespace)
	}
	return m.List(), nil
}

// StopSteering ends a rule of ours, all with the name "".
func (s *Session) StopSteering(ctx context.Context, name string) ([]string, error) {
	m, err := s.steered()
	if err != nil {
		return nil, err
	}
	return m.Stop(ctx, name)
}

// SteeredRequests gives the requests that a rule took.
func (s *Session) SteeredRequests(ctx context.Context, rule string, follow bool, begin func(), line func(localapi.SteeredRequest) error) error {
	m, err := s.steered()
	if err != nil {
		return err
	}
	return m.Requests(ctx, rule, follow, begin, line)
}

// InspectSteering is what the last connections of a rule carried.
func (s *Session) InspectSteering(_ context.Context, rule string) ([]localapi.Inspection, error) {
	m, err := s.steered()
	if err != nil {
		return nil, err
	}
	return m.Inspect(rule)
}

// ReplaySteered sends a request that a rule took to its local program once more.
func (s *Session) ReplaySteered(ctx context.Context, rule string, req localapi.ReplayRequest) (localapi.Inspection, error) {
	m, err := s.steered()
	if err != nil {
		return localapi.Inspection{}, err
	}
	return m.Replay(ctx, rule, req)
}

// RevokeSteering deletes somebody's rule.
func (s *Session) RevokeSteering(ctx context.Context, req localapi.RevokeRequest) ([]string, error) {
	m, err := s.steered()
	if err != nil {
		return nil, err
	}
	if err := s.sameCluster(req.Kube); err != nil {
		return nil, err
	}
	return m.Revoke(ctx, req.Namespace, req.Name)
}
