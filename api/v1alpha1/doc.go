// Package v1alpha1 holds podnet's API objects: every grant that podnet acts on
// is one of them, written with the user's own credentials, so that the API
// server decides and its audit log remembers.
//
// +kubebuilder:object:generate=true
// +groupName=podnet.dev
package v1alpha1

//go:generate go tool controller-gen object paths=.
//go:generate go tool controller-gen crd paths=. output:crd:dir=../../deploy/manifests/crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every object in this package.
var GroupVersion = schema.GroupVersion{Group: "podnet.dev", Version: "v1alpha1"}

// AddToScheme registers this package's objects with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Peer{}, &PeerList{}, &Access{}, &AccessList{}, &SteeringRule{}, &SteeringRuleList{},
		&Exposure{}, &ExposureList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
