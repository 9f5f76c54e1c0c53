package localapi

// DoctorRequest asks for an examination of this machine, of the cluster and of
// the way between them.
type DoctorRequest struct {
	Kube Kube `json:"kube"`
	// GatewayNamespace is where podnet is installed.
	GatewayNamespace string `json:"gatewayNamespace,omitempty"`
	// Namespaces that connect would open; empty means the kubeconfig context's.
	Namespaces []string `json:"namespaces,omitempty"`
}

// Findings are all of an examination, as scripts keep them.
type Findings struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Findings   []Finding `json:"findings"`
}

// NewFindings are none yet.
func NewFindings() Findings {
	return Findings{APIVersion: APIVersion, Kind: "Findings", Findings: []Finding{}}
}

// Finding is one thing that was looked at.
type Finding struct {
	// Check names it as GROUP/NAME, for example path/udp.
	Check  string `json:"check"`
	Result Result `json:"result"`
	// Text says what was found, in a sentence without a full stop.
	Text string `json:"text"`
	// Fix says what to do about it, as a command where there is one.
	Fix string `json:"fix,omitempty"`
}

// Result is how a Finding is to be taken.
type Result string

const (
	ResultOK      Result = "ok"
	ResultWarning Result = "warning" // podnet works, less well or not for everything
	ResultProblem Result = "problem" // something that podnet needs does not work
	ResultSkipped Result = "skipped" // could not be looked at, or does not apply
)
