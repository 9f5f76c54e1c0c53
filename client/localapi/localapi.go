// Package localapi is the API of the user's daemon: its types, where its
// socket is, and a Go client. The CLI, the tray and scripts speak to the
// daemon through it and through nothing else. It knows no Kubernetes.
//
// The API is HTTP/1.1 with JSON on a unix socket that only its owner can open;
// docs/openapi.yaml has it at length:
//
//	GET  /v1/version      Version
//	GET  /v1/status       Status
//	GET  /v1/events       Event values one a line out, ?since=SEQ
//	POST /v1/connect      ConnectRequest in, Event values one a line out
//	POST /v1/disconnect   DisconnectResult; with ?held=1 of a session that only the caller holds, ?all=1 of all
//	POST /v1/primary      PrimaryRequest in, nothing out
//	POST /v1/probe        Probe; tries what connecting tries last
//	POST /v1/doctor       DoctorRequest in, Finding values one a line out
//	POST /v1/contexts     ContextsRequest in, ContextList
//	GET  /v1/namespaces   NamespaceList
//	GET  /v1/services     ServiceList, ?namespace=NS
//	GET  /v1/dns          DNSAnswer, ?name=NAME, &type=TYPE unless A
//	GET  /v1/dns/queries  DNSQuery values one a line out, ?follow=1
//	POST /v1/namespace    NamespaceRequest in, nothing out
//	POST /v1/ui           UIRequest in, UI out
//
//	POST   /v1/steer                   SteerRequest in, SteerEvent values one a line out
//	GET    /v1/steer                   SteerList; everybody's with ?all=1&namespace=NS
//	DELETE /v1/steer/NAME, ?all=1      SteerStopped
//	GET    /v1/steer/NAME/requests     SteeredRequest values one a line out, ?follow=1
//	GET    /v1/steer/NAME/inspected    Inspections
//	POST   /v1/steer/NAME/replay       ReplayRequest in, Inspection out
//	POST   /v1/steer/revoke            RevokeRequest in, SteerStopped
//
//	POST   /v1/as                      AsRequest in, SteerEvent values one a line out
//
//	POST   /v1/expose                       ExposeRequest in, ExposeEvent values one a line out
//	GET    /v1/expose                       ExposeList; everybody's with ?all=1&namespace=NS
//	DELETE /v1/expose/NAME?namespace=NS     ExposeStopped; without NS in whichever namespace it is
//	DELETE /v1/expose?all=1                 ExposeStopped
//
//	GET    /v1/profiles        ProfileList
//	PUT    /v1/profiles/NAME   Profile in, nothing out
//	DELETE /v1/profiles/NAME   nothing out
//
//	POST /v1/export          ExportRequest in, Exported out
//	POST /v1/export/list     ExportListRequest in, ExportList out
//	POST /v1/export/revoke   ExportRevokeRequest in, ExportsRevoked out
//
// There may be several sessions, each with another cluster. What is about one, and
// not about a name in its body, takes ?session=NAME; without it is about the
// primary, or where nobody is primary about the only one.
package localapi

import (
	"cmp"
	"slices"
	"time"

	"podnet.dev/internal/httpjson"
)

// APIVersion stands in every document that scripts may keep.
const APIVersion = "podnet/v1"

// Error is how the daemon says no.
type Error = httpjson.Error

// Codes of an Error, and of the exit status that the CLI makes of it.
const (
	CodeInternal     = httpjson.CodeInternal
	CodeUsage        = "usage"
	CodeNotConnected = "not-connected"
	CodeCredentials  = "credentials"   // the API server does not know the caller
	CodeForbidden    = "forbidden"     // it does, and says no
	CodeTimeout      = "timeout"       // something did not happen in time
	CodeUnreachable  = "unreachable"   // no way to the API server
	CodeNotInstalled = "not-installed" // no podnet in that cluster
	CodeTooOld       = "too-old"       // the cluster lacks what podnet stands on
	CodeDaemon       = "daemon"        // the daemon is not there or not ours
	CodeConflict     = "conflict"      // an address, a route, a session or somebody's rule is in the way
	CodeDNS          = "dns"           // names do not resolve
	CodeDeploy       = "deploy"        // the gateway could not be installed
	CodePrivilege    = "privilege"     // the host's network is not ours to change
	CodeEnded        = "ended"         // the session's permission or lease is over
	CodeCanceled     = "canceled"      // somebody asked for it
	CodeNotFound     = "not-found"     // there is no such thing
)

// Phase is a step of connecting, in this order.
type Phase string

const (
	PhaseAuth      Phase = "auth"      // who am I to the API server
	PhaseGateway   Phase = "gateway"   // Peer and Access written, gateway admitted us
	PhaseHandshake Phase = "handshake" // WireGuard has a session over some path
	PhaseIdentity  Phase = "identity"  // what we send leaves from a pod; only where that was asked for
	PhaseRoutes    Phase = "routes"    // the host routes the cluster's prefixes
	PhaseDNS       Phase = "dns"       // the host resolves the cluster's names
	PhaseReady     Phase = "ready"     // everything was tried once and works
)

// Kube says which cluster to talk to and as whom: the kubectl connection flags
// that were given, by name, and the caller's environment, which kubeconfig and
// exec plugins depend on. File names in Flags are absolute.
type Kube struct {
	Flags map[string][]string `json:"flags,omitempty"`
	Env   []string            `json:"env,omitempty"`
}

// KubeconfigData is the environment variable that holds a kubeconfig itself, as text
// or in base64, for whoever has it as a secret and no file to put it into.
const KubeconfigData = "PODNET_KUBECONFIG_DATA"

// ConnectRequest asks for a session. The zero value of a field is its default.
type ConnectRequest struct {
	Kube Kube `json:"kube"`
	// Name of the session; empty means the kubeconfig context's.
	Name string `json:"name,omitempty"`
	// Primary makes it the one whose short names resolve. The first session is
	// that anyhow.
	Primary bool `json:"primary,omitempty"`
	// Namespaces to open; empty means the kubeconfig context's namespace.
	Namespaces []string `json:"namespaces,omitempty"`
	// AllNamespaces asks for the whole cluster at once.
	AllNamespaces bool `json:"allNamespaces,omitempty"`
	// Path is auto, udp or apiserver.
	Path string `json:"path,omitempty"`
	// GatewayNamespace is where podnet is installed.
	GatewayNamespace string `json:"gatewayNamespace,omitempty"`
	// LeaseSeconds is how long the gateway keeps us after the last renewal, 60 to 900.
	LeaseSeconds int32 `json:"leaseSeconds,omitempty"`
	// Addresses is auto, direct or virtual: at which addresses this machine sees the
	// cluster. Empty is auto.
	Addresses string `json:"addresses,omitempty"`
	// As is whose pod what we send leaves from, as deploy/web in the first of the
	// Namespaces; empty: the gateway's.
	As string `json:"as,omitempty"`
	// Device is auto, userspace or kernel: whose WireGuard the session has. Empty and
	// auto are userspace (docs/adr/0015).
	Device string `json:"device,omitempty"`
	Beyond
	// Reconnect has the daemon connect again when the session, once it was ready, has
	// ended by itself, until somebody disconnects it.
	Reconnect bool `json:"reconnect,omitempty"`
	// Hold ends the session when this call's caller hangs up, and everybody else who
	// holds it has, unless somebody has connected without.
	Hold bool `json:"hold,omitempty"`
}

// SameAs reports whether a session made for r serves o as well, whatever it is
// called and whether or not it is primary.
func (r ConnectRequest) SameAs(o ConnectRequest) bool {
	sorted := func(s []string) []string { s = slices.Clone(s); slices.Sort(s); return slices.Compact(s) }
	return r.AllNamespaces == o.AllNamespaces && r.Path == o.Path && r.As == o.As && (r.Device == DeviceKernel) == (o.Device == DeviceKernel) && cmp.Or(r.Addresses, "auto") == cmp.Or(o.Addresses, "auto") && r.GatewayNamespace == o.GatewayNamespace &&
		slices.Equal(sorted(r.Namespaces), sorted(o.Namespaces)) && r.Beyond.same(o.Beyond) && r.Kube.same(o.Kube)
}

func (k Kube) same(o Kube) bool {
	if len(k.Flags) != len(o.Flags) || k.env("KUBECONFIG") != o.env("KUBECONFIG") || k.env(KubeconfigData) != o.env(KubeconfigData) {
		return false
	}
	for name, v := range k.Flags {
		if !slices.Equal(v, o.Flags[name]) {
			return false
		}
	}
	return true
}

func (k Kube) env(name string) string {
	for _, e := range k.Env {
		if len(e) > len(name) && e[:len(name)] == name && e[len(name)] == '=' {
			return e[len(name)+1:]
		}
	}
	return ""
}

// State is the one word that status, its exit code and an icon's colour share.
type State string

const (
	Disconnected State = "Disconnected"
	Connecting   State = "Connecting"
	Connected    State = "Connected"
	Degraded     State = "Degraded"
	Failed       State = "Error"
)

// Status is everything about this machine's sessions.
type Status struct {
	APIVersion  string       `json:"apiVersion"`
	Kind        string       `json:"kind"`
	State       State        `json:"state"`
	Since       *time.Time   `json:"since,omitempty"`
	Connections []Connection `json:"connections"`
	Warnings    []Warning    `json:"warnings"`
	// Exports are the devices without podnet that this daemon knows of.
	Exports []Export `json:"exports,omitempty"`
	// LastError is why the last session that ended by itself did, until another
	// begins or somebody disconnects.
	LastError *Error `json:"lastError,omitempty"`
	// Seq is the newest Event's: what happens from now on comes after it.
	Seq int64 `json:"seq"`
}

// NewStatus is a Status of nothing.
func NewStatus() Status {
	return Status{APIVersion: APIVersion, Kind: "Status", State: Disconnected, Connections: []Connection{}, Warnings: []Warning{}}
}

// Connection is one session: this machine joined to one cluster.
type Connection struct {
	// Name tells the sessions of this machine apart.
	Name    string `json:"name"`
	Context string `json:"context"`
	Server  string `json:"server"`
	User    string `json:"user"`
	// Namespace is the one whose short names resolve; Namespaces are all that
	// are open, empty when AllNamespaces.
	Namespace     string   `json:"namespace"`
	Namespaces    []string `json:"namespaces"`
	AllNamespaces bool     `json:"allNamespaces,omitempty"`
	// Primary says that short names and those in the cluster's zone are this
	// session's. Of several at most one is.
	Primary bool  `json:"primary"`
	Phase   Phase `json:"phase"`
	// As is the pod from which what this machine sends leaves; nil: the gateway's.
	As *Identity `json:"as,omitempty"`
	// Since is when the session became ready.
	Since   *time.Time `json:"since,omitempty"`
	Peer    string     `json:"peer,omitempty"`
	Gateway Gateway    `json:"gateway"`
	Tunnel  Tunnel     `json:"tunnel"`
	Path    Path       `json:"path"`
	Lease   Lease      `json:"lease"`
	// NAT is how the NAT in front of this machine maps a UDP port, in the words
	// of RFC 4787: endpoint-independent or endpoint-dependent (symmetric).
	// Empty when no STUN server has answered.
	NAT string `json:"nat,omitempty"`
	// Reenrolled counts how often the session had to enrol again with a new key.
	Reenrolled int `json:"reenrolled,omitempty"`
	// Addresses are those at which this machine sees the cluster, and Routes are of
	// them.
	Addresses Addresses `json:"addresses"`
	Routes    []string  `json:"routes"`
	DNS       DNS       `json:"dns"`
	// Steering and Exposing are in brief what SteerList and ExposeList tell of this
	// machine.
	Steering Tally `json:"steering"`
	Exposing Tally `json:"exposing"`
}

// Addresses is at which addresses this machine sees a cluster.
type Addresses struct {
	// Mode is direct, the cluster's own, or virtual, others for those of a family at
	// least. Empty before it is known.
	Mode string `json:"mode,omitempty"`
	// Why there are virtual ones.
	Why string `json:"why,omitempty"`
	// Map is which prefixes stand for which of the cluster's.
	Map []VirtualPrefix `json:"map,omitempty"`
	// Refused is how many packets went to virtual addresses that neither a name nor
	// OpenAddress has given out in this session, and did not pass; LastRefused is
	// where the last of them went.
	Refused     uint64 `json:"refused,omitempty"`
	LastRefused string `json:"lastRefused,omitempty"`
}

// VirtualPrefix is a prefix of the cluster's, and the one of the same length that
// stands for it on this machine.
type VirtualPrefix struct {
	Real    string `json:"real"`
	Virtual string `json:"virtual"`
}

// ModeNamespace is the Mode of a Gateway that serves its namespace alone.
const ModeNamespace = "namespace"

// Gateway is the pod at the other end.
type Gateway struct {
	Namespace string `json:"namespace"`
	// Mode is namespace where the gateway serves its namespace alone. Empty: the
	// whole cluster's.
	Mode      string `json:"mode,omitempty"`
	Pod       string `json:"pod"`
	PublicKey string `json:"publicKey,omitempty"`
	// Version is its release; empty where it does not say it.
	Version string `json:"version,omitempty"`
	// Draining is true when this gateway is about to stop.
	Draining bool `json:"draining,omitempty"`
	// Others are the pods of the other replicas that admit us.
	Others []string `json:"others,omitempty"`
}

// Tunnel is the WireGuard device. Rx and Tx are bytes.
type Tunnel struct {
	Interface string `json:"interface"`
	// Device is userspace or kernel: whose WireGuard the interface is.
	Device   string `json:"device,omitempty"`
	Address  string `json:"address,omitempty"`
	Address6 string `json:"address6,omitempty"`
	MTU      int    `json:"mtu"`
	// LastHandshake is how long ago, as a Go duration; empty before the first.
	LastHandshake string `json:"lastHandshake,omitempty"`
	Rx            int64  `json:"rx"`
	Tx            int64  `json:"tx"`
	// RTTMs is the round trip that the DNS probe measured.
	RTTMs float64 `json:"rttMs,omitempty"`
}

// Path is how the datagrams travel.
type Path struct {
	// Kind is udp or apiserver; empty while no path is live.
	Kind   string     `json:"kind"`
	Remote string     `json:"remote,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	// Reason says why this path and no better one.
	Reason string `json:"reason,omitempty"`
	// RTTMs is the smoothed round trip of the probes, in milliseconds.
	RTTMs float64 `json:"rttMs,omitempty"`
	// Redials counts how often the stream of apiserver was dialled anew.
	Redials int `json:"redials,omitempty"`
	// MTU is the largest packet in the tunnel, in bytes, that this path was
	// seen to carry whole both ways.
	MTU int `json:"mtu,omitempty"`
	// Others are the paths that are not in use, the live ones first.
	Others []OtherPath `json:"others"`
}

// OtherPath is a path that is not in use.
type OtherPath struct {
	Kind   string  `json:"kind"`
	Remote string  `json:"remote,omitempty"`
	Live   bool    `json:"live"`
	RTTMs  float64 `json:"rttMs,omitempty"`
	// Error is why it is not live.
	Error string `json:"error,omitempty"`
}

// Lease is the permission and its end.
type Lease struct {
	Seconds int32      `json:"seconds"`
	Renewed *time.Time `json:"renewed,omitempty"`
	// ExpiresAt is when the gateway lets go of us if we cannot renew.
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
	// Frozen is true while the API server is away and the gateway keeps us
	// regardless.
	Frozen bool `json:"frozen,omitempty"`
	// Error is why the last renewal failed.
	Error string `json:"error,omitempty"`
}

// DNS is how the host finds the cluster's names.
type DNS struct {
	Listen []string `json:"listen"`
	Mode   string   `json:"mode,omitempty"`
	Zone   string   `json:"zone,omitempty"`
	// Alias is the zone whose names are this session's, whichever is primary:
	// web.shop.svc.ALIAS.
	Alias string `json:"alias,omitempty"`
	Probe string `json:"probe,omitempty"`
	// Healthy is true when programs of this machine that look for a name of the
	// cluster ask the session's proxy and hear its answer, as seen within the
	// last minute. Problem is what goes wrong.
	Healthy bool   `json:"healthy"`
	Problem string `json:"problem,omitempty"`
}

// Warning is something the user should know and can do something about.
type Warning struct {
	// Connection is the name of the session that it is about; empty: all of them.
	Connection string `json:"connection,omitempty"`

	Code     string `json:"code"`
	Severity string `json:"severity"`
	Text     string `json:"text"`
	Hint     string `json:"hint,omitempty"`
}

// Version says what runs.
type Version struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Version    string `json:"version"`
	PID        int    `json:"pid"`
	Log        string `json:"log,omitempty"`
	// Goroutines and HeapBytes are what a daemon that forgets nothing would let grow;
	// the latter are those that were in use at the last garbage collection.
	Goroutines int   `json:"goroutines"`
	HeapBytes  int64 `json:"heapBytes"`
}

// DisconnectResult answers a disconnect. Exits is true when the daemon ends as
// well, because it has nothing left to do.
type DisconnectResult struct {
	Sessions int `json:"sessions"`
	// Names are those of the sessions that ended.
	Names []string `json:"names"`
	// Primary is the session that has become it, because the one that was has ended.
	Primary string `json:"primary,omitempty"`
	Exits   bool   `json:"exits"`
	PID     int    `json:"pid"`
}
