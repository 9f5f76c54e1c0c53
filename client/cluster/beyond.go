package cluster

import (
	"context"
	"fmt"

	"podnet.dev/api/v1alpha1"
)

// The verbs that admission asks for, as package deploy spells them.
const (
	verbRoute  = "also-route"
	verbDomain = "also-domain"
)

// refusedBeyond says which prefix or domain beside the cluster we may not have, nil
// when that is not what a Peer was refused for.
func (c *Client) refusedBeyond(ctx context.Context, namespace string, spec v1alpha1.PeerSpec, err error) error {
	var needs []Permission
	for verb, names := range map[string][]string{verbRoute: spec.AlsoRoutes, verbDomain: spec.AlsoDomains} {
		for _, name := range names {
			needs = append(needs, Permission{Verb: verb, Group: "podnet.dev", Resource: "peers", Namespace: namespace, Name: name})
		}
	}
	p := c.missing(ctx, needs)
	if p == nil {
		return nil
	}
	role := p.Verb + "-" + nameOf(p.Name)
	return &ForbiddenError{User: c.User, Permission: *p, Err: err, Ask: fmt.Sprintf(
		"kubectl -n %[1]s create role %[2]s --verb=%[3]s --resource=peers.podnet.dev --resource-name=%[4]s && kubectl -n %[1]s create rolebinding %[2]s-%[5]s --role=%[2]s %[6]s",
		namespace, role, p.Verb, p.Name, nameOf(c.User), c.subject())}
}
