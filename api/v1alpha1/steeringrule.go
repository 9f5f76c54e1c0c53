package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SteeringRule says that what reaches a port of one pod goes to a peer (steal),
// or is copied to it (mirror): all of it, or the requests that match. Or it says
// that what the peer sends into the cluster leaves from that pod (egress). Admission
// demands that its writer may patch pods/ephemeralcontainers of that pod, and
// asks again at each renewal. It is owned by the Pod and goes with it.
//
// With via it is a port of a Service instead, whose traffic a gateway takes and
// passes on to the pods; its writer must be allowed to patch that Service, which
// owns the rule.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="User",type=string,JSONPath=`.spec.user`
// +kubebuilder:printcolumn:name="Rule",type=string,JSONPath=`.spec.rule`
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.pod`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.service`
// +kubebuilder:printcolumn:name="Port",type=integer,JSONPath=`.spec.port`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.conditions[?(@.type=="AgentReady")].status`
// +kubebuilder:printcolumn:name="Matched",type=integer,JSONPath=`.status.matched`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SteeringRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SteeringRuleSpec   `json:"spec"`
	Status SteeringRuleStatus `json:"status,omitempty"`
}

// SteeringMode says who answers, or who asks.
//
// +kubebuilder:validation:Enum=steal;mirror;egress
type SteeringMode string

// SteeringEgress is the mode in which nothing comes to the peer: what it sends
// into the cluster leaves from the pod.
const SteeringEgress SteeringMode = "egress"

// SteeringProtocol is what a port speaks below any application.
//
// +kubebuilder:validation:Enum=tcp;udp
type SteeringProtocol string

// SteeringRuleSpec is what the user asks for. Everything but renew and agentKey
// is immutable.
//
// +kubebuilder:validation:XValidation:rule="self.user == oldSelf.user && self.peer == oldSelf.peer && self.rule == oldSelf.rule && self.target == oldSelf.target && self.via == oldSelf.via && self.pod == oldSelf.pod && self.podUID == oldSelf.podUID && self.service == oldSelf.service && self.serviceUID == oldSelf.serviceUID && self.port == oldSelf.port && self.protocol == oldSelf.protocol && self.mode == oldSelf.mode && has(self.matches) == has(oldSelf.matches) && (!has(self.matches) || self.matches == oldSelf.matches) && self.onError == oldSelf.onError && self.clientAddress == oldSelf.clientAddress && self.relayPort == oldSelf.relayPort && self.local == oldSelf.local",message="only renew and agentKey may change"
// +kubebuilder:validation:XValidation:rule="self.renew >= oldSelf.renew",message="renew must not decrease"
// +kubebuilder:validation:XValidation:rule="self.protocol != 'udp' || !has(self.matches) || size(self.matches) == 0",message="udp is steered as a whole: it takes no matches"
// +kubebuilder:validation:XValidation:rule="self.protocol != 'udp' || size(self.clientAddress) == 0",message="udp takes no clientAddress"
// +kubebuilder:validation:XValidation:rule="self.clientAddress != 'header' || (has(self.matches) && size(self.matches) > 0)",message="clientAddress header needs matches"
// +kubebuilder:validation:XValidation:rule="self.mode == 'egress' || (self.port >= 1 && self.relayPort >= 1024)",message="port must be above 0 and relayPort above 1023"
// +kubebuilder:validation:XValidation:rule="self.mode != 'egress' || (self.port == 0 && self.relayPort == 0 && size(self.local) == 0 && (!has(self.matches) || size(self.matches) == 0) && size(self.onError) == 0 && size(self.clientAddress) == 0)",message="egress takes no port, relayPort, local, matches, onError or clientAddress"
// +kubebuilder:validation:XValidation:rule="self.via == 'service' ? size(self.service) > 0 && size(self.serviceUID) > 0 && size(self.pod) == 0 && size(self.podUID) == 0 : size(self.pod) > 0 && size(self.podUID) > 0 && size(self.service) == 0 && size(self.serviceUID) == 0",message="pod and podUID name what is steered, or service and serviceUID with via service"
// +kubebuilder:validation:XValidation:rule="self.via != 'service' || (self.protocol == 'tcp' && self.mode in ['steal', 'mirror'] && size(self.agentKey) == 0)",message="via service takes tcp, steal or mirror, and no agentKey"
type SteeringRuleSpec struct {
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

	// Renew is raised with each renewal; a rule lives as long as its Peer's
	// leaseSeconds after its last renewal.
	// +kubebuilder:validation:Minimum=1
	Renew int64 `json:"renew"`

	// Rule is the name that the rules of one `podnet steer` share: a rule for
	// each pod of the target.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Rule string `json:"rule"`

	// Target is what the user named, as deploy/web, for the reader.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=320
	Target string `json:"target"`

	// Via is where the traffic is taken: in the pod, by an agent (empty), or
	// before the pods of a Service, by a gateway (service).
	// +kubebuilder:validation:Enum="";service
	// +kubebuilder:default=""
	Via string `json:"via,omitempty"`

	// Pod and PodUID are the steered pod, in this namespace; both empty with via.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=63
	PodUID string `json:"podUID,omitempty"`

	// Service and ServiceUID are the steered Service, in this namespace; both
	// empty without via.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=63
	Service string `json:"service,omitempty"`
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=63
	ServiceUID string `json:"serviceUID,omitempty"`

	// Port is the pod's port, or the Service's; 0 with egress.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// +kubebuilder:default=tcp
	Protocol SteeringProtocol `json:"protocol,omitempty"`

	// Mode is steal (the laptop answers), mirror (it gets a copy) or egress (what
	// the laptop sends leaves from the pod).
	// +kubebuilder:default=steal
	Mode SteeringMode `json:"mode,omitempty"`

	// Matches: a request must match any of them. Empty: the whole port.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Matches []SteeringMatch `json:"matches,omitempty"`

	// OnError is what happens to requests that the laptop cannot take: they
	// fail, or the pod's own program (app) gets them.
	// +kubebuilder:validation:Enum="";app
	// +kubebuilder:default=""
	OnError string `json:"onError,omitempty"`

	// ClientAddress is how the laptop learns a client's address: by the PROXY
	// protocol (proxy), by X-Forwarded-For (header), or not at all.
	// +kubebuilder:validation:Enum="";proxy;header
	// +kubebuilder:default=""
	ClientAddress string `json:"clientAddress,omitempty"`

	// RelayPort is where the traffic arrives on the peer's relay address. 7411
	// is taken there: agents and laptops talk to each other on it. It is 0 with
	// egress.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 7411",message="7411 is podnet's own"
	RelayPort int32 `json:"relayPort"`

	// Local is where the laptop takes it, as 3000 or app.test:3000, for the
	// reader.
	// +kubebuilder:default=""
	// +kubebuilder:validation:MaxLength=320
	Local string `json:"local"`

	// AgentKey is the WireGuard public key that the agent in the pod printed.
	// The user writes it when the agent is there.
	// +kubebuilder:default=""
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9+/]{42}[AEIMQUYcgkosw480]=)?$`
	AgentKey string `json:"agentKey,omitempty"`
}

// SteeringMatch is a set of conditions on a request; all that are given must
// hold. Patterns are exact, globs with *, or regular expressions after a ~.
type SteeringMatch struct {
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Headers []SteeringCondition `json:"headers,omitempty"`
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Query []SteeringCondition `json:"query,omitempty"`
	// +kubebuilder:validation:MaxLength=1024
	Method string `json:"method,omitempty"`
	// +kubebuilder:validation:MaxLength=1024
	Host string `json:"host,omitempty"`
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path,omitempty"`
	// GRPC is a pattern for package.Service/Method.
	// +kubebuilder:validation:MaxLength=1024
	GRPC string `json:"grpc,omitempty"`
}

// SteeringCondition asks for a named value.
type SteeringCondition struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Name string `json:"name"`
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value"`
}

// SteeringRuleStatus is what the gateway made of it.
type SteeringRuleStatus struct {
	// ObservedRenew is the spec.renew that Accepted speaks of.
	ObservedRenew int64 `json:"observedRenew,omitempty"`
	// ExpiresAt is when the rule ends if it is not renewed; see Peer.
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
	// Agent is the agent that the pod's rules are with, or with egress the one
	// that the rule names; absent while it is not connected to a gateway. With
	// via it is a gateway's own, and there as soon as the rule is accepted.
	Agent *SteeringAgent `json:"agent,omitempty"`
	// Witnesses are other gateways that have an agent of the pod with the rule in
	// force. They speak while the leading one has none.
	// +listType=map
	// +listMapKey=pod
	Witnesses []SteeringWitness `json:"witnesses,omitempty"`
	// Selector is what the Service selected before it was steered, and selects
	// again after it, while it is steered.
	Selector map[string]string `json:"selector,omitempty"`
	// Matched counts requests, or connections of a whole port, that the rule
	// took; Failed those of them that the laptop did not answer. With egress they
	// count flows that left, and those of them that could not be opened. They are
	// written every few seconds while they change.
	Matched int64 `json:"matched,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
	// Passed counts requests of the rule's port that no rule took.
	Passed int64 `json:"passed,omitempty"`
	// Conditions has Accepted and AgentReady.
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// SteeringAgent is the agent in a pod.
type SteeringAgent struct {
	PublicKey string `json:"publicKey"`
	// Generation is of the rule set that it has in force, by the gateway that
	// leads; absent while that one does not hear it.
	Generation int64 `json:"generation,omitempty"`
}

// SteeringWitness is a gateway to which an agent is connected that has the rule in
// force.
type SteeringWitness struct {
	// Pod and PodUID are the gateway's.
	Pod    string `json:"pod"`
	PodUID string `json:"podUID"`
	// PublicKey is the agent's.
	PublicKey string `json:"publicKey"`
	// Matched, Failed and Passed are as in the status.
	Matched int64 `json:"matched,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
	Passed  int64 `json:"passed,omitempty"`
}

// SteeringRuleList is a list of rules.
//
// +kubebuilder:object:root=true
type SteeringRuleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SteeringRule `json:"items"`
}

// ViaService is the Via that steers a Service.
const ViaService = "service"

// LabelRule is on each SteeringRule; its value is spec.rule.
const LabelRule = "podnet.dev/rule"

// What stands on Services while rules steer them.
const (
	// AnnotationSelector holds the selector of a steered Service as it was
	// before, in JSON.
	AnnotationSelector = "podnet.dev/original-selector"
	// LabelSteeredBy is the one label that a steered Service selects. No pod has
	// it. Its value is the namespace of the gateways.
	LabelSteeredBy = "podnet.dev/steered-by"
	// LabelShadow is on the Service that selects the pods of a steered one
	// meanwhile; its value is that one's name.
	LabelShadow = "podnet.dev/shadow"
)

// Condition types and reasons of a SteeringRule; Accepted shares Expired,
// PeerMissing and PolicyMissing with the others.
const (
	// ConditionAccepted is true while the gateway lets the rule act.
	ConditionAccepted = "Accepted"
	// ConditionAgentReady is true while the pod's agent has the rule in force.
	ConditionAgentReady = "AgentReady"

	ReasonAccepted = "Accepted"
	ReasonClash    = "Clash"   // an older rule of somebody else takes the same requests
	ReasonInvalid  = "Invalid" // the rule cannot be; its message says why

	// ReasonServiceRefused: the Service cannot be steered; the message says why.
	ReasonServiceRefused = "ServiceRefused"

	ReasonInForce      = "InForce"      // the agent has the rule
	ReasonAgentMissing = "AgentMissing" // no agent of this pod is connected
	ReasonAgentTrouble = "AgentTrouble" // the agent says what is wrong
)
