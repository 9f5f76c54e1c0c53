package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Exposure says that a peer's local port is to be reached in this namespace under
// a Service's name, which is the Exposure's own. The gateway keeps a Service in
// its own namespace that leads to the peer; one of type ExternalName, which the
// user writes here and which the Exposure owns, leads to that one. Admission
// demands that its writer may create services in the namespace, and asks again at
// each renewal.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user`
// +kubebuilder:printcolumn:name="Local",type=string,JSONPath=`.spec.local`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.status.host`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",message="metadata.name is a Service's: a DNS label that begins with a letter"
type Exposure struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ExposureSpec   `json:"spec"`
	Status ExposureStatus `json:"status,omitempty"`
}

// ExposureSpec is what the user asks for. Everything but renew is immutable.
//
// +kubebuilder:validation:XValidation:rule="self.user == oldSelf.user && self.peer == oldSelf.peer && self.ports == oldSelf.ports && self.local == oldSelf.local",message="only renew may change"
// +kubebuilder:validation:XValidation:rule="self.renew >= oldSelf.renew",message="renew must not decrease"
type ExposureSpec struct {
	// User is the name the API server knows the writer by. Admission pins it
	// to the caller.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	User string `json:"user"`

	// Peer names the Peer, in the gateway's namespace, that gets the traffic.
	// It must belong to the same user.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Peer string `json:"peer"`

	// Renew is raised with each renewal; an Exposure lives as long as its Peer's
	// leaseSeconds after its last renewal.
	// +kubebuilder:validation:Minimum=1
	Renew int64 `json:"renew"`

	// Ports are the Service's, each of them once.
	// +listType=map
	// +listMapKey=port
	// +listMapKey=protocol
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Ports []ExposurePort `json:"ports"`

	// Local is where the laptop takes the traffic, as 3000 or app.test:3000, for
	// the reader.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=320
	Local string `json:"local"`
}

// ExposureProtocol is what a port speaks below any application.
//
// +kubebuilder:validation:Enum=tcp;udp
type ExposureProtocol string

// The protocols of an exposed port.
const (
	ExposureTCP ExposureProtocol = "tcp"
	ExposureUDP ExposureProtocol = "udp"
)

// ExposurePort is one port of the Service.
type ExposurePort struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// +kubebuilder:default=tcp
	Protocol ExposureProtocol `json:"protocol,omitempty"`
	// RelayPort is where the traffic arrives on the peer's relay address. Several
	// ports may arrive at one. 7411 is taken there.
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 7411",message="7411 is podnet's own"
	RelayPort int32 `json:"relayPort"`
}

// ExposureStatus is what the gateway made of it.
type ExposureStatus struct {
	// ObservedRenew is the spec.renew that Ready speaks of.
	ObservedRenew int64 `json:"observedRenew,omitempty"`
	// ExpiresAt is when the exposure ends if it is not renewed; see Peer.
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
	// Host is the DNS name of the gateway's Service that leads to the peer. It
	// is there once Ready has been true, and stays the same.
	Host string `json:"host,omitempty"`
	// Conditions has Ready: Admitted, or why not: Expired, PeerMissing,
	// PolicyMissing, Invalid, LimitReached.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ExposureList is a list of exposures.
//
// +kubebuilder:object:root=true
type ExposureList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Exposure `json:"items"`
}

// LabelExposure is on what the gateways keep for an Exposure in their own
// namespace; its value is the Exposure's UID.
const LabelExposure = "podnet.dev/exposure"
