// Package deploy holds what `podnet install` puts into a cluster: the embedded
// manifests and the few things about them that may be chosen. It renders; it
// knows no cluster and applies nothing.
package deploy

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strconv"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"podnet.dev/internal/version"
)

// The names that client and gateway must agree on.
const (
	DefaultNamespace = "podnet-system"
	// StatefulSetName names the gateway's StatefulSet and headless Service;
	// its pods are podnet-gateway-0, podnet-gateway-1 and so on.
	StatefulSetName = "podnet-gateway"
	// ServiceAccountName is the gateway's ServiceAccount.
	ServiceAccountName = "gateway"
	// UDPServiceName names the Service that publishes the first gateway's
	// WireGuard port; further gateways' have "-1", "-2" after it.
	UDPServiceName = "podnet-gateway-udp"
	// OwnerPolicy, PeerPolicy, AccessPolicy, SteeringPolicy, ExposurePolicy and
	// ServicesPolicy are the ValidatingAdmissionPolicies.
	OwnerPolicy    = "podnet-owner"
	PeerPolicy     = "podnet-peer"
	AccessPolicy   = "podnet-access"
	SteeringPolicy = "podnet-steering"
	ExposurePolicy = "podnet-exposure"
	ServicesPolicy = "podnet-services"
	// ServicesRole is what the gateway needs in a namespace to steer Services
	// there. An administrator binds it.
	ServicesRole = "podnet-gateway-services"
)

// LabelMode and ModeNamespace mark what an install for one namespace has made.
const (
	LabelMode     = "podnet.dev/mode"
	ModeNamespace = "namespace"
)

// Words that begin the refusals of the admission policies.
const (
	ReasonOwner     = "PODNET-OWNER"     // spec.user is not the caller, or the caller may not touch this object
	ReasonPeer      = "PODNET-PEER"      // the caller may not have so long a lease, or what lies beside the cluster
	ReasonAccess    = "PODNET-ACCESS"    // the caller may not create pods/portforward there
	ReasonNamespace = "PODNET-NAMESPACE" // a Peer outside the gateway's namespace
	// ReasonSteer: the caller may not patch the pod's ephemeral containers, or
	// the Service, or the rule does not belong to what it steers.
	ReasonSteer = "PODNET-STEER"
	// ReasonServices: the gateway may not do this to Services or EndpointSlices.
	ReasonServices = "PODNET-SERVICES"
	// ReasonExec: a command in the gateway's container that is not top.
	ReasonExec = "PODNET-EXEC"
	// ReasonExpose: the caller may not create services there.
	ReasonExpose = "PODNET-EXPOSE"
)

//go:embed manifests
var manifests embed.FS

// Render gives the objects to apply, in the order to apply them: namespace,
// CRDs, RBAC, admission policies, and the gateway last. The same options give
// the same objects. Every object has the labels app.kubernetes.io/{name,part-of,
// managed-by,version}. With Namespaced there is the gateway alone, labelled LabelMode.
func Render(o Options) ([]*unstructured.Unstructured, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	globs := []string{
		"manifests/10-*.yaml", "manifests/20-*.yaml", "manifests/crds/*.yaml", "manifests/30-*.yaml", "manifests/40-*.yaml", "manifests/50-*.yaml",
	}
	if o.Namespaced {
		globs = globs[len(globs)-1:]
	}
	var all []*unstructured.Unstructured
	for _, glob := range globs {
		names, err := fs.Glob(manifests, glob)
		if err != nil || len(names) == 0 {
			return nil, fmt.Errorf("find manifests %s: %w", glob, err)
		}
		for _, name := range names {
			objects, err := renderFile(name, o)
			if err != nil {
				return nil, fmt.Errorf("render %s: %w", name, err)
			}
			all = append(all, objects...)
		}
	}
	for _, u := range all {
		label(u, o.labels())
	}
	return all, nil
}

func renderFile(name string, o Options) ([]*unstructured.Unstructured, error) {
	text, err := manifests.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(name, "/crds/") { // those are generated and have no parameters
		t, err := template.New(name).Option("missingkey=error").Funcs(o.functions()).Parse(string(text))
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, o); err != nil {
			return nil, err
		}
		text = out.Bytes()
	}
	return parse(text)
}

func parse(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		u := &unstructured.Unstructured{}
		switch err := d.Decode(&u.Object); {
		case err == io.EOF:
			return objects, nil
		case err != nil:
			return nil, err
		case len(u.Object) == 0: // a document of comments alone
		case u.GetKind() == "" || u.GetName() == "":
			return nil, fmt.Errorf("an object without kind or name")
		default:
			objects = append(objects, u)
		}
	}
}

func label(u *unstructured.Unstructured, with map[string]string) {
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, with)
	u.SetLabels(labels)
}

// labels are on every object; `podnet uninstall` finds them by part-of and mode.
func (o Options) labels() map[string]string {
	all := map[string]string{
		"app.kubernetes.io/name":       "podnet",
		"app.kubernetes.io/part-of":    "podnet",
		"app.kubernetes.io/managed-by": "podnet",
		"app.kubernetes.io/version":    labelValue(version.Version),
	}
	if o.Namespaced {
		all[LabelMode] = ModeNamespace
	}
	return all
}

// Selector is what the gateway's pods are selected by.
func Selector() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name":      "podnet",
		"app.kubernetes.io/component": "gateway",
	}
}

// labelValue turns a version into a label value: "1.2.0+build" becomes "1.2.0_build".
func labelValue(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, s)
	if len(s) > 63 {
		s = s[:63]
	}
	return strings.Trim(s, "._-")
}

type udpService struct {
	Name, Pod, Type string
	NodePort        int32
}

// functions are the words of the templates. Whatever comes from outside goes
// through one of them, as JSON, so that no value can change the structure.
func (o Options) functions() template.FuncMap {
	return template.FuncMap{
		"quote":       toJSON,
		"cel":         celString,
		"pods":        func() (string, error) { return toJSON(o.pods()) },
		"selector":    func() (string, error) { return toJSON(Selector()) },
		"podLabels":   o.podLabels,
		"subjects":    func() (string, error) { return toJSON(o.subjects()) },
		"pullSecrets": o.pullSecrets,
		"metricsFrom": o.metricsFrom,
		"args":        func() (string, error) { return toJSON(o.args()) },
		"goMemLimit":  o.goMemLimit,
		"udpServices": o.udpServices,
		"beyond":      beyond,
	}
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// celString writes a CEL string literal. Its argument is a validated DNS label
// or made of them, so there is nothing to escape.
func celString(s string) string { return "'" + s + "'" }

func (o Options) pods() []string {
	names := make([]string, o.Replicas)
	for i := range names {
		names[i] = StatefulSetName + "-" + strconv.Itoa(i)
	}
	return names
}

func (o Options) podLabels() (string, error) {
	labels := o.labels()
	maps.Copy(labels, Selector())
	return toJSON(labels)
}

func (o Options) udpServices() []udpService {
	if o.UDPService == "" {
		return nil
	}
	services := make([]udpService, o.Replicas)
	for i, pod := range o.pods() {
		services[i] = udpService{Name: UDPServiceName, Pod: pod, Type: o.UDPService}
		if i > 0 {
			services[i].Name += "-" + strconv.Itoa(i)
		}
		if o.NodePort != 0 {
			services[i].NodePort = o.NodePort + int32(i)
		}
	}
	return services
}
