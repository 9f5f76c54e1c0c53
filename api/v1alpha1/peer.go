package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Peer says that a WireGuard public key belongs to a user for as long as the
// lease is renewed. It lives in the gateway's namespace only. The spec is
// written by the user, the status by the gateway, which is why the gateway key
// in the status is authentic.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user`
// +kubebuilder:printcolumn:name="Device",type=string,JSONPath=`.spec.device`
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.status.address4`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.clientVersion`,priority=1
// +kubebuilder:printcolumn:name="Gateway",type=string,JSONPath=`.status.gateways[0].pod`,priority=1
type Peer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PeerSpec   `json:"spec"`
	Status PeerStatus `json:"status,omitempty"`
}

// PeerSpec is what the user asks for. Everything but renew, candidates
// and virtual is immutable.
//
// +kubebuilder:validation:XValidation:rule="self.user == oldSelf.user && self.publicKey == oldSelf.publicKey && self.leaseSeconds == oldSelf.leaseSeconds && self.device == oldSelf.device && self.clientVersion == oldSelf.clientVersion",message="only renew, candidates and virtual may change"
// +kubebuilder:validation:XValidation:rule="has(self.alsoRoutes) == has(oldSelf.alsoRoutes) && (!has(self.alsoRoutes) || self.alsoRoutes == oldSelf.alsoRoutes) && has(self.alsoDomains) == has(oldSelf.alsoDomains) && (!has(self.alsoDomains) || self.alsoDomains == oldSelf.alsoDomains)",message="only renew, candidates and virtual may change"
// +kubebuilder:validation:XValidation:rule="self.renew >= oldSelf.renew",message="renew must not decrease"
type PeerSpec struct {
	// User is the name the API server knows the writer by. Admission pins it
	// to the caller.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	User string `json:"user"`

	// PublicKey is the WireGuard public key in base64, as `wg pubkey` prints it.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw480]=$`
	PublicKey string `json:"publicKey"`

	// LeaseSeconds is how long the peer lives after its last renewal: for a
	// laptop 15 minutes at most, longer for who has the verb export on peers,
	// whose device without podnet cannot renew by itself.
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=604800
	LeaseSeconds int32 `json:"leaseSeconds"`

	// Renew is raised by one with each renewal.
	// +kubebuilder:validation:Minimum=1
	Renew int64 `json:"renew"`

	// Device names the machine, for the reader of `kubectl get peers`.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=63
	Device string `json:"device"`

	// ClientVersion is the version of the podnet that wrote this object.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=63
	ClientVersion string `json:"clientVersion"`

	// Candidates are UDP addresses (ip:port) at which this peer might be
	// reached: those of its own interfaces, and those that others see it at.
	// The gateway sends a few probes there, which open its own NAT for the
	// answer; nothing else.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	Candidates []string `json:"candidates,omitempty"`

	// Virtual are prefixes that stand for the cluster's, where the peer's own
	// network has those: what the peer sends to the address of a virtual prefix
	// goes to the one at the same place in the real prefix, and DNS answers the
	// peer with virtual addresses. It opens nothing.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Virtual []VirtualPrefix `json:"virtual,omitempty"`

	// AlsoRoutes are prefixes (10.20.0.0/16) beside the cluster that the peer is to
	// reach through it. Each takes the verb also-route on the peer of that name.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=43
	AlsoRoutes []string `json:"alsoRoutes,omitempty"`

	// AlsoDomains are domains (corp.internal) whose names the cluster's own DNS
	// server is asked for. Each takes the verb also-domain on the peer of that name.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	AlsoDomains []string `json:"alsoDomains,omitempty"`
}

// VirtualPrefix is a prefix of the cluster and the one that stands for it, of the
// same family and length.
type VirtualPrefix struct {
	// Real is a prefix (10.244.0.0/16) of pods or Services.
	// +kubebuilder:validation:MaxLength=43
	Real string `json:"real"`
	// Virtual is the prefix that the peer routes in its place.
	// +kubebuilder:validation:MaxLength=43
	Virtual string `json:"virtual"`
}

// PeerStatus is what the gateway grants.
type PeerStatus struct {
	// Address4 is the peer's IPv4 tunnel address (empty when none is left).
	Address4 string `json:"address4,omitempty"`
	// Address6 is the peer's IPv6 tunnel address, derived from its key.
	Address6 string `json:"address6,omitempty"`
	// Gateways lists the gateway pods that admit this peer.
	// +listType=map
	// +listMapKey=pod
	Gateways []Gateway `json:"gateways,omitempty"`
	// Network describes the cluster as the peer needs to know it.
	Network *Network `json:"network,omitempty"`
	// Virtual are those of spec.virtual that the gateways map. The condition
	// VirtualAddresses tells what became of the others.
	// +listType=atomic
	Virtual []VirtualPrefix `json:"virtual,omitempty"`
	// ObservedRenew is a spec.renew that prolonged the lease: the last one
	// when ExpiresAt was written.
	ObservedRenew int64 `json:"observedRenew,omitempty"`
	// ExpiresAt is when the lease ends if it is not renewed, by the gateway's
	// clock. It informs; the gateway itself counts on its monotonic clock. To
	// spare the API server it is rewritten once it lags behind by half a lease,
	// so a live peer's true deadline is never earlier than this one.
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
	// Conditions has Ready, with a reason when it is false: Expired, Conflict,
	// LimitReached, PolicyMissing. Ready is written after the first entry of
	// Gateways, so a reader who waits for Ready finds somewhere to go.
	// VirtualAddresses is there when spec.virtual is: true when all of it is
	// mapped (Mapped), false when some is not (NotMapped), with the reason.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Gateway is one gateway pod as a WireGuard peer.
type Gateway struct {
	Pod       string `json:"pod"`
	PodUID    string `json:"podUID"`
	PublicKey string `json:"publicKey"`
	// Endpoints are the UDP endpoints (ip:port) at which the gateway may be
	// reached directly. Empty when only the API server's port-forward is left.
	// +listType=atomic
	Endpoints []string `json:"endpoints,omitempty"`
	// ClusterEndpoints are the UDP endpoints (ip:port) at which pods reach the
	// gateway: its pod's own addresses.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=64
	ClusterEndpoints []string `json:"clusterEndpoints,omitempty"`
	// Candidates are UDP addresses (ip:port) at which the gateway might be
	// reached if both sides send at once: those that STUN servers saw, and
	// where the next mapping is likely to be.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	Candidates []string `json:"candidates,omitempty"`
	// NAT is how the cluster's NAT maps the gateway's UDP port, in the words
	// of RFC 4787: endpoint-independent or endpoint-dependent (symmetric).
	// Empty when no STUN server has answered.
	// +kubebuilder:validation:Enum="";endpoint-independent;endpoint-dependent
	NAT string `json:"nat,omitempty"`
	// Draining is true when this gateway is about to stop: go to another.
	Draining bool `json:"draining,omitempty"`
	// Limits are those that the peer's user has reached at this gateway within the
	// last minute, by their names (docs/permissions.md), or memory, when the gateway
	// is short of it: what would go beyond is refused.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=63
	Limits []string `json:"limits,omitempty"`
	// StreamPort is the TCP port on the gateway pod's loopback that carries
	// WireGuard datagrams over the API server's port-forward.
	StreamPort int32 `json:"streamPort"`
	// Version is the gateway's release. Empty from those that do not say it.
	Version string `json:"version,omitempty"`
}

// Network is what a laptop must know of the cluster to route and resolve.
type Network struct {
	// PodCIDRs and ServiceCIDRs are the ranges to route into the tunnel.
	// +listType=atomic
	PodCIDRs []string `json:"podCIDRs,omitempty"`
	// +listType=atomic
	ServiceCIDRs []string `json:"serviceCIDRs,omitempty"`
	// DNSDomain is the cluster's zone, normally cluster.local.
	DNSDomain string `json:"dnsDomain"`
	// DNSAddresses are the tunnel addresses that answer DNS on port 53.
	// +listType=atomic
	DNSAddresses []string `json:"dnsAddresses,omitempty"`
	// STUN are the STUN servers (host:port) that the cluster's administrator
	// has chosen for both sides to learn their mapped addresses from.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	// +kubebuilder:validation:items:MaxLength=261
	STUN []string `json:"stun,omitempty"`
}

// PeerList is a list of peers.
//
// +kubebuilder:object:root=true
type PeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Peer `json:"items"`
}

// Condition types and reasons of a Peer and an Access. The messages beside
// them are sentences for people.
const (
	// ConditionReady is true while the gateway acts on the object.
	ConditionReady = "Ready"
	// ConditionVirtual is true when all of a Peer's spec.virtual is mapped.
	ConditionVirtual = "VirtualAddresses"

	ReasonAdmitted      = "Admitted"
	ReasonExpired       = "Expired"       // the lease was not renewed in time
	ReasonConflict      = "Conflict"      // an older Peer has this key
	ReasonLimitReached  = "LimitReached"  // too many peers of this user or in all
	ReasonPolicyMissing = "PolicyMissing" // the admission policy does not protect us
	ReasonPeerMissing   = "PeerMissing"   // an Access names a Peer that is not live or not its user's

	ReasonMapped    = "Mapped"    // all of spec.virtual
	ReasonNotMapped = "NotMapped" // some pair of spec.virtual is no good
)
