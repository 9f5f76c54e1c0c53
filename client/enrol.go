package client

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/cluster"
	"podnet.dev/internal/version"
)

// grant is one set of objects of ours in a cluster.
type grant struct {
	Server    string   `json:"server"`
	Namespace string   `json:"namespace"` // the gateway's
	Peer      string   `json:"peer"`
	Accesses  []string `json:"accesses"`
}

// writeObjects creates the Peer and the Accesses with our own credentials. All
// are written at once; the gateway does not mind the order.
func (s *Session) writeObjects(ctx context.Context) error {
	r := s.Request
	s.peer = cluster.PeerName(s.id.User, device())
	s.accesses = r.Namespaces
	if r.AllNamespaces {
		s.accesses = []string{r.GatewayNamespace}
	}
	g := grant{s.id.Server, r.GatewayNamespace, s.peer, s.accesses}
	s.note(func(all []grant) []grant { return append(all, g) })
	s.undo.add("the objects in the cluster", func(ctx context.Context) error { return s.deleteGrant(ctx, g) })

	s.peerSpec = v1alpha1.PeerSpec{
		PublicKey: s.private.Public().String(), LeaseSeconds: r.LeaseSeconds, Device: device(), ClientVersion: version.Version,
	}
	if err := s.cluster.CreatePeer(ctx, r.GatewayNamespace, s.peer, s.peerSpec); err != nil {
		return err
	}
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(8)
	for _, ns := range s.accesses {
		eg.Go(func() error { return s.cluster.CreateAccess(ctx, ns, s.peer, s.scope()) })
	}
	return eg.Wait()
}

func (s *Session) scope() v1alpha1.AccessScope {
	if s.Request.AllNamespaces {
		return v1alpha1.ScopeCluster
	}
	return v1alpha1.ScopeNamespace
}

func (s *Session) deleteGrant(ctx context.Context, g grant) error {
	var eg errgroup.Group
	eg.SetLimit(8)
	for _, ns := range g.Accesses {
		eg.Go(func() error { return s.cluster.DeleteAccess(ctx, ns, g.Peer) })
	}
	eg.Go(func() error { return s.cluster.DeletePeer(ctx, g.Namespace, g.Peer) })
	err := eg.Wait()
	var forbidden *cluster.ForbiddenError
	if err == nil || errors.As(err, &forbidden) {
		s.note(func(all []grant) []grant {
			return slices.DeleteFunc(all, func(o grant) bool { return o.Server == g.Server && o.Peer == g.Peer })
		})
	}
	return err
}

// deleteLeftovers deletes what killed sessions had in this cluster. They would
// end with their leases, but until then they count against the user's limit.
func (s *Session) deleteLeftovers(ctx context.Context) {
	for _, g := range s.noted() {
		if g.Server != s.id.Server {
			continue
		}
		if err := s.deleteGrant(ctx, g); err != nil {
			s.Log.Info("leftover stays until its lease ends", "peer", g.Peer, "err", err)
		}
	}
}

func (s *Session) noteFile() string { return filepath.Join(s.StateDir, "objects.json") }

func (s *Session) noted() []grant {
	if s.StateDir == "" {
		return nil
	}
	var all []grant
	raw, err := os.ReadFile(s.noteFile())
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil && !os.IsNotExist(err) {
		s.Log.Info("cannot read the note of objects", "err", err)
	}
	return all
}

// note rewrites the note of our objects. It holds names, nothing secret. A disk
// that is full or read-only keeps nobody from connecting.
func (s *Session) note(edit func([]grant) []grant) {
	if s.StateDir == "" {
		return
	}
	all := edit(s.noted())
	raw, err := json.Marshal(all)
	if err == nil {
		err = os.MkdirAll(s.StateDir, 0o700)
	}
	if err == nil && len(all) == 0 {
		if err = os.Remove(s.noteFile()); os.IsNotExist(err) {
			err = nil
		}
	} else if err == nil {
		tmp := s.noteFile() + ".new"
		if err = os.WriteFile(tmp, raw, 0o600); err == nil {
			err = os.Rename(tmp, s.noteFile())
		}
	}
	if err != nil {
		s.Log.Info("cannot note our objects", "err", err)
	}
}
