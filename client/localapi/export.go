package localapi

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"time"
)

// ExportRequest asks for a WireGuard configuration for a device without podnet. The
// zero value of a field is its default.
type ExportRequest struct {
	Kube Kube `json:"kube"`
	// Namespaces to open, AllNamespaces and GatewayNamespace are as in a
	// ConnectRequest.
	Namespaces       []string `json:"namespaces,omitempty"`
	AllNamespaces    bool     `json:"allNamespaces,omitempty"`
	GatewayNamespace string   `json:"gatewayNamespace,omitempty"`
	// Device is what the reader of a list calls it, a DNS label.
	Device string `json:"device,omitempty"`
	// LeaseSeconds is how long the gateway keeps the device after the last renewal,
	// 60 to 604800.
	LeaseSeconds int32 `json:"leaseSeconds,omitempty"`
	// Resolvers are asked for names that are not the cluster's, after the gateway,
	// which refuses those.
	Resolvers []netip.Addr `json:"resolvers,omitempty"`
}

// ExportLeaseMax is the longest lease that the cluster takes: a week, after which
// nobody remembers which device it was.
const ExportLeaseMax = 7 * 24 * time.Hour

var deviceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// Check finds what can be known to be wrong without a cluster.
func (r ExportRequest) Check() error {
	if !deviceName.MatchString(r.Device) {
		return usage(fmt.Sprintf("name %q: want at most 32 of a-z, 0-9 and -, none of these first or last", r.Device), "podnet export --name phone")
	}
	if lease := time.Duration(r.LeaseSeconds) * time.Second; lease < time.Minute || lease > ExportLeaseMax {
		return usage(fmt.Sprintf("lease %v: want 1m to %.0fh", lease, ExportLeaseMax.Hours()), "podnet export --lease 24h")
	}
	for _, a := range r.Resolvers {
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			return usage(fmt.Sprintf("resolver %s is no address that a device could ask", a), "podnet export --dns 192.168.1.1")
		}
	}
	return nil
}

// Exported answers an ExportRequest. Config holds the device's private key, which
// nobody else has, and which is not kept.
type Exported struct {
	Export Export `json:"export"`
	Config string `json:"config"`
}

// Export is a device without podnet that is let into a cluster.
type Export struct {
	// Name is the Peer's.
	Name   string `json:"name"`
	Device string `json:"device"`
	User   string `json:"user"`
	Server string `json:"server"`
	// Namespaces are open to it, none when AllNamespaces.
	Namespaces    []string `json:"namespaces"`
	AllNamespaces bool     `json:"allNamespaces,omitempty"`
	// Gateway is the pod that its configuration leads to.
	Gateway      string    `json:"gateway"`
	LeaseSeconds int32     `json:"leaseSeconds"`
	Made         time.Time `json:"made"`
	// ExpiresAt is when the gateway lets go of it unless it is renewed.
	ExpiresAt time.Time `json:"expiresAt"`
	// Renewed says that this daemon renews it.
	Renewed bool `json:"renewed"`
	// Text says what is wrong with it, Hint what to do; empty: nothing.
	Text string `json:"text,omitempty"`
	Hint string `json:"hint,omitempty"`
}

// ExportListRequest asks which exports there are, in the caller's cluster above all:
// those that were made there on this machine are renewed from now on.
type ExportListRequest struct {
	Kube Kube `json:"kube"`
}

// ExportList answers it.
type ExportList struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Exports    []Export `json:"exports"`
}

// NewExportList is a list of exports.
func NewExportList(all []Export) ExportList {
	return ExportList{APIVersion: APIVersion, Kind: "ExportList", Exports: append([]Export{}, all...)}
}

// ExportRevokeRequest ends exports: those of the names, which are Peers' or devices',
// or all that were made on this machine in the caller's cluster.
type ExportRevokeRequest struct {
	Kube  Kube     `json:"kube"`
	Names []string `json:"names,omitempty"`
	All   bool     `json:"all,omitempty"`
}

// ExportsRevoked are the names of the Peers that are no more.
type ExportsRevoked struct {
	Exports []string `json:"exports"`
}

// Export asks for a configuration. Who cancels ctx gets none, and leaves nothing.
func (c *Client) Export(ctx context.Context, req ExportRequest) (Exported, error) {
	var e Exported
	return e, c.do(ctx, http.MethodPost, "/v1/export", req, &e)
}

// Exports lists this machine's exports.
func (c *Client) Exports(ctx context.Context, req ExportListRequest) (ExportList, error) {
	var l ExportList
	return l, c.do(ctx, http.MethodPost, "/v1/export/list", req, &l)
}

// RevokeExports ends exports.
func (c *Client) RevokeExports(ctx context.Context, req ExportRevokeRequest) (ExportsRevoked, error) {
	var r ExportsRevoked
	return r, c.do(ctx, http.MethodPost, "/v1/export/revoke", req, &r)
}
