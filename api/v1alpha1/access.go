package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Access says that a peer may reach the pods and Services of the namespace it
// is in. Admission demands that its writer may create pods/portforward there,
// and asks again at each renewal.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=accesses,singular=access
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user`
// +kubebuilder:printcolumn:name="Peer",type=string,JSONPath=`.spec.peer`
// +kubebuilder:printcolumn:name="Scope",type=string,JSONPath=`.spec.scope`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
type Access struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AccessSpec   `json:"spec"`
	Status AccessStatus `json:"status,omitempty"`
}

// AccessScope is how far an Access reaches.
//
// +kubebuilder:validation:Enum=Namespace;Cluster
type AccessScope string

const (
	// ScopeNamespace opens the namespace the Access is in.
	ScopeNamespace AccessScope = "Namespace"
	// ScopeCluster opens every namespace. Only valid in the gateway's
	// namespace, and only for those who may create pods/portforward everywhere.
	ScopeCluster AccessScope = "Cluster"
)

// AccessSpec is what the user asks for. Everything but renew is immutable.
//
// +kubebuilder:validation:XValidation:rule="self.user == oldSelf.user && self.peer == oldSelf.peer && self.scope == oldSelf.scope",message="only renew may change"
// +kubebuilder:validation:XValidation:rule="self.renew >= oldSelf.renew",message="renew must not decrease"
type AccessSpec struct {
	// User is the name the API server knows the writer by. Admission pins it
	// to the caller.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	User string `json:"user"`

	// Peer names the Peer, in the gateway's namespace, that gets the access.
	// It must belong to the same user.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Peer string `json:"peer"`

	// Renew is raised with each renewal; an Access lives as long as its Peer's
	// leaseSeconds after its last renewal.
	// +kubebuilder:validation:Minimum=1
	Renew int64 `json:"renew"`

	// Scope is Namespace, or Cluster in the gateway's namespace.
	// +kubebuilder:default=Namespace
	Scope AccessScope `json:"scope,omitempty"`
}

// AccessStatus is what the gateway made of it. It is written when Ready
// changes, not with each renewal: a team of a thousand renews thirty of these
// a second.
type AccessStatus struct {
	// ObservedRenew is the spec.renew that Ready speaks of.
	ObservedRenew int64 `json:"observedRenew,omitempty"`
	// Conditions has Ready, with a reason when it is false: Expired,
	// PeerMissing, PolicyMissing.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AccessList is a list of accesses.
//
// +kubebuilder:object:root=true
type AccessList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Access `json:"items"`
}
