package localapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
)

// Profile is a way to connect under a name, as the user's configuration keeps it.
// The session that it makes has the same name.
type Profile struct {
	Name string `json:"name"`
	// AutoConnect says that a daemon which starts with the user's login connects by
	// it, and again when the session has ended by itself.
	AutoConnect bool `json:"autoConnect,omitempty"`
	// Connect is what it asks for.
	Connect Words `json:"connect"`
}

// Words are what connect is asked for, without who asks: a ConnectRequest less the
// caller's environment. The zero value of a field is its default.
type Words struct {
	// Context and Kubeconfig are those of kubectl's flags. The file's name is absolute,
	// or begins with ~/ for the home of whoever connects.
	Context    string `json:"context,omitempty"`
	Kubeconfig string `json:"kubeconfig,omitempty"`

	Namespaces       []string `json:"namespaces,omitempty"`
	AllNamespaces    bool     `json:"allNamespaces,omitempty"`
	Path             string   `json:"path,omitempty"`
	Addresses        string   `json:"addresses,omitempty"`
	GatewayNamespace string   `json:"gatewayNamespace,omitempty"`
	LeaseSeconds     int32    `json:"leaseSeconds,omitempty"`
	As               string   `json:"as,omitempty"`
	Device           string   `json:"device,omitempty"`
	Primary          bool     `json:"primary,omitempty"`
	Reconnect        bool     `json:"reconnect,omitempty"`
	Beyond
}

// Request is what the profile asks for in somebody's environment.
func (p Profile) Request(env []string) ConnectRequest {
	w := p.Connect
	r := ConnectRequest{
		Name: p.Name, Kube: Kube{Env: env}, Namespaces: w.Namespaces, AllNamespaces: w.AllNamespaces, Path: w.Path, Addresses: w.Addresses,
		GatewayNamespace: w.GatewayNamespace, LeaseSeconds: w.LeaseSeconds, As: w.As, Device: w.Device, Primary: w.Primary, Reconnect: w.Reconnect, Beyond: w.Beyond,
	}
	for flag, value := range map[string]string{"context": w.Context, "kubeconfig": w.KubeconfigIn(env)} {
		if value != "" {
			if r.Kube.Flags == nil {
				r.Kube.Flags = map[string][]string{}
			}
			r.Kube.Flags[flag] = []string{value}
		}
	}
	return r
}

// KubeconfigIn is the file's name in somebody's environment.
func (w Words) KubeconfigIn(env []string) string {
	if rest, ok := strings.CutPrefix(w.Kubeconfig, "~/"); ok {
		return filepath.Join(Kube{Env: env}.env("HOME"), rest)
	}
	return w.Kubeconfig
}

// Check finds what can be known to be wrong without a cluster.
func (p Profile) Check() error {
	if !nameForm.MatchString(p.Name) {
		return usage(fmt.Sprintf("%q is no name for a profile", p.Name), "small letters, digits and dashes, as in staging")
	}
	if k := p.Connect.Kubeconfig; k != "" && !filepath.IsAbs(k) && !strings.HasPrefix(k, "~/") {
		return usage(fmt.Sprintf("kubeconfig %q: want an absolute name, or ~/ before it", k), "a profile is not about the folder that it is used in")
	}
	r := p.Request(nil).WithDefaults()
	return r.Check()
}

// ProfileList are the profiles of the user and of the machine, by name.
type ProfileList struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Profiles   []Profile `json:"profiles"`
}

// NewProfileList is a list of profiles.
func NewProfileList(all []Profile) ProfileList {
	return ProfileList{APIVersion, "ProfileList", append([]Profile{}, all...)}
}

// Profiles lists what the configuration has.
func (c *Client) Profiles(ctx context.Context) ([]Profile, error) {
	var l ProfileList
	err := c.do(ctx, http.MethodGet, "/v1/profiles", nil, &l)
	return l.Profiles, err
}

// SaveProfile writes a profile into the user's configuration, in place of the one of
// that name.
func (c *Client) SaveProfile(ctx context.Context, p Profile) error {
	return c.do(ctx, http.MethodPut, "/v1/profiles/"+url.PathEscape(p.Name), p, &struct{}{})
}

// RemoveProfile takes a profile out of the user's configuration. That there is none
// is an error of CodeNotFound.
func (c *Client) RemoveProfile(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/v1/profiles/"+url.PathEscape(name), nil, &struct{}{})
}
