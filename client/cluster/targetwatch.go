package cluster

// PodSet is all pods of a target. Finished ones are left out; those that are
// terminating are in it and say so.
type PodSet struct {
	Pods []Pod // sorted by name
	// Port is the number of the steered port by pod UID; a pod without that port
	// is missing here.
	Port map[string]uint16
	// Err says why Pods may be old or wanting: the API server does not answer,
	// the target is gone (a *TargetGoneError), no pod has the port (a
	// *NoPortError).
	Err error
}
