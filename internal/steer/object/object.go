// Package object reads steering rules out of the API's objects. Both ends use
// it: the laptop before it writes one, the gateway before it acts on it.
package object

import (
	"math"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/internal/steer"
)

// Rule is what a SteeringRule says. Its name is the object's, which is unique in
// the pod as all of a pod's rules are in its namespace.
func Rule(o *v1alpha1.SteeringRule) (steer.Rule, error) {
	s := &o.Spec
	r := steer.Rule{
		Name: o.Name, Owner: s.User, Since: o.CreationTimestamp.Time,
		Protocol: steer.Protocol(s.Protocol), Port: port(s.Port), Mode: steer.Mode(s.Mode),
		ToApp: s.OnError == "app", ClientAddress: steer.ClientAddress(s.ClientAddress),
	}
	for _, m := range s.Matches {
		r.Matches = append(r.Matches, steer.Match{
			Headers: conditions(m.Headers), Query: conditions(m.Query),
			Method: m.Method, Host: m.Host, Path: m.Path, GRPC: m.GRPC,
		})
	}
	return r, r.Validate()
}

// port is a port, 0 for what is none: the rule is not valid then.
func port(n int32) uint16 {
	if n < 0 || n > math.MaxUint16 {
		return 0
	}
	return uint16(n)
}

// Matches is the reverse, for who writes an object.
func Matches(all []steer.Match) []v1alpha1.SteeringMatch {
	var out []v1alpha1.SteeringMatch
	for _, m := range all {
		out = append(out, v1alpha1.SteeringMatch{
			Headers: written(m.Headers), Query: written(m.Query),
			Method: m.Method, Host: m.Host, Path: m.Path, GRPC: m.GRPC,
		})
	}
	return out
}

func conditions(all []v1alpha1.SteeringCondition) (out []steer.Condition) {
	for _, c := range all {
		out = append(out, steer.Condition(c))
	}
	return out
}

func written(all []steer.Condition) (out []v1alpha1.SteeringCondition) {
	for _, c := range all {
		out = append(out, v1alpha1.SteeringCondition(c))
	}
	return out
}
