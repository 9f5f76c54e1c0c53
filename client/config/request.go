package config

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"podnet.dev/client/localapi"
)

// kubeFlags are those of kubectl's connection flags that name what a kubeconfig has.
var kubeFlags = []string{"kubeconfig", "context", "cluster", "user"}

// Request is what podnet connect asks for when nothing but the configuration speaks,
// for those who have no command line. What kube says already is heeded.
func (c Config) Request(kube localapi.Kube) (localapi.ConnectRequest, error) {
	return c.fill(localapi.ConnectRequest{Kube: kube})
}

// ProfileRequest is what podnet connect PROFILE asks for.
func (c Config) ProfileRequest(name string, env []string) (localapi.ConnectRequest, error) {
	p, ok := c.Profile(name)
	if !ok {
		return localapi.ConnectRequest{}, &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no profile " + name, Hint: "podnet profile list"}
	}
	return c.fill(p.Request(env))
}

// fill adds the defaults to what a request leaves open.
func (c Config) fill(r localapi.ConnectRequest) (localapi.ConnectRequest, error) {
	text := map[string]*string{"path": &r.Path, "addresses": &r.Addresses, "gateway-namespace": &r.GatewayNamespace, "device": &r.Device}
	lists := map[string]*[]string{"also-route": &r.AlsoRoutes, "also-domain": &r.AlsoDomains, "never-route": &r.NeverRoutes}
	ephemeral := false
	yes := map[string]*bool{"reconnect": &r.Reconnect, "ephemeral": &ephemeral}
	if !r.AllNamespaces { // who asks for every one, or for one, asks for nothing else
		lists["namespace"] = &r.Namespaces
	}
	if len(r.Namespaces) == 0 {
		yes["all-namespaces"] = &r.AllNamespaces
	}
	flags := map[string][]string{}
	for name, values := range r.Kube.Flags {
		flags[name] = values
	}
	for name, d := range c.Defaults {
		one := d.Values[0]
		var err error
		switch {
		case text[name] != nil && *text[name] == "":
			*text[name] = one
		case lists[name] != nil && len(*lists[name]) == 0:
			*lists[name] = d.Values
		case yes[name] != nil && !*yes[name]:
			*yes[name], err = strconv.ParseBool(one)
		case name == "lease" && r.LeaseSeconds == 0:
			var lease time.Duration
			lease, err = time.ParseDuration(one)
			r.LeaseSeconds = int32(lease / time.Second)
		case slices.Contains(kubeFlags, name) && flags[name] == nil:
			flags[name] = d.Values
		}
		if err != nil {
			return r, &Error{d.From, fmt.Sprintf("defaults.%s: %v", name, err)}
		}
	}
	if len(flags) > 0 {
		r.Kube.Flags = flags
	}
	r = r.WithDefaults()
	if ephemeral {
		r.LeaseSeconds = min(r.LeaseSeconds, int32(localapi.LeaseEphemeral/time.Second))
	}
	return r, r.Check()
}
