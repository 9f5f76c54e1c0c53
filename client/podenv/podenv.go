// Package podenv makes the environment of a container out of its specification, as the
// kubelet does. It is pure: who calls it has read the objects.
package podenv

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Source is where the specification is from.
type Source struct {
	// Template has the containers: a running pod's specification, or a workload's.
	Template corev1.PodSpec
	// Meta is the pod's, or what a workload gives to its pods, which have no name, UID
	// and addresses yet.
	Meta metav1.ObjectMeta
	// Pod says that there is one, with Status.
	Pod    bool
	Status corev1.PodStatus
	// ConfigMaps and Secrets are the data of those that Needs has named, by name; nil
	// data: there is no such object. Denied is why one could not be read.
	ConfigMaps, Secrets map[string]map[string][]byte
	Denied              map[Ref]error
}

// Ref is a ConfigMap or a Secret.
type Ref struct {
	Secret bool
	Name   string
}

func (r Ref) String() string {
	if r.Secret {
		return "Secret " + r.Name
	}
	return "ConfigMap " + r.Name
}

// DefaultContainer is the annotation by which a pod says which of its containers is
// meant when none is named, kubectl's.
const DefaultContainer = "kubectl.kubernetes.io/default-container"

// Find is the container of a name, or the one that kubectl would take. names are those
// that there are.
func Find(spec corev1.PodSpec, meta metav1.ObjectMeta, name string) (c *corev1.Container, names []string) {
	for i := range spec.Containers {
		names = append(names, spec.Containers[i].Name)
	}
	want := cmp.Or(name, meta.Annotations[DefaultContainer])
	if i := slices.Index(names, want); i >= 0 {
		return &spec.Containers[i], names
	}
	if name != "" || len(names) == 0 {
		return nil, names
	}
	return &spec.Containers[0], names
}

// Needs are the objects that a container's environment is made of, each once.
func Needs(c *corev1.Container) []Ref {
	var all []Ref
	add := func(r Ref) {
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	for _, f := range c.EnvFrom {
		if f.ConfigMapRef != nil {
			add(Ref{false, f.ConfigMapRef.Name})
		}
		if f.SecretRef != nil {
			add(Ref{true, f.SecretRef.Name})
		}
	}
	for _, e := range c.Env {
		switch v := e.ValueFrom; {
		case v == nil:
		case v.ConfigMapKeyRef != nil:
			add(Ref{false, v.ConfigMapKeyRef.Name})
		case v.SecretKeyRef != nil:
			add(Ref{true, v.SecretKeyRef.Name})
		}
	}
	return all
}

// Resolve makes the environment: NAME=value, each name once, and in words what is left
// out, and why.
func Resolve(s Source, c *corev1.Container) (vars, unknown []string) {
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = value
	}
	miss := func(what string, why error) { unknown = append(unknown, what+": "+why.Error()) }
	for _, f := range c.EnvFrom {
		var ref Ref
		optional := false
		switch {
		case f.ConfigMapRef != nil:
			ref, optional = Ref{false, f.ConfigMapRef.Name}, isTrue(f.ConfigMapRef.Optional)
		case f.SecretRef != nil:
			ref, optional = Ref{true, f.SecretRef.Name}, isTrue(f.SecretRef.Optional)
		default:
			continue
		}
		data, err := s.data(ref)
		if err != nil {
			if !optional || s.Denied[ref] != nil {
				miss("all of "+ref.String(), err)
			}
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(data)) {
			if name := f.Prefix + key; name != "" && !strings.ContainsAny(name, "=\x00") {
				set(name, string(data[key]))
			}
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			set(e.Name, expand(e.Value, values))
			continue
		}
		value, there, err := s.value(c, e.ValueFrom)
		switch {
		case err != nil:
			miss(e.Name, err)
		case there:
			set(e.Name, value)
		}
	}
	for _, name := range order {
		if value := values[name]; strings.ContainsRune(value, 0) {
			miss(name, fmt.Errorf("its value has a byte 0"))
		} else {
			vars = append(vars, name+"="+value)
		}
	}
	return vars, unknown
}

func isTrue(b *bool) bool { return b != nil && *b }

func (s Source) data(ref Ref) (map[string][]byte, error) {
	if err := s.Denied[ref]; err != nil {
		return nil, err
	}
	all := s.ConfigMaps
	if ref.Secret {
		all = s.Secrets
	}
	data := all[ref.Name]
	if data == nil {
		return nil, fmt.Errorf("there is no %s", ref)
	}
	return data, nil
}

// value is what a reference stands for. It is not there, without an error, where it is
// optional.
func (s Source) value(c *corev1.Container, v *corev1.EnvVarSource) (_ string, there bool, err error) {
	key := func(ref Ref, key string, optional *bool) (string, bool, error) {
		data, err := s.data(ref)
		if err == nil {
			value, ok := data[key]
			if ok {
				return string(value), true, nil
			}
			err = fmt.Errorf("%s has no key %s", ref, key)
		}
		if isTrue(optional) && s.Denied[ref] == nil {
			return "", false, nil
		}
		return "", false, err
	}
	switch {
	case v.ConfigMapKeyRef != nil:
		return key(Ref{false, v.ConfigMapKeyRef.Name}, v.ConfigMapKeyRef.Key, v.ConfigMapKeyRef.Optional)
	case v.SecretKeyRef != nil:
		return key(Ref{true, v.SecretKeyRef.Name}, v.SecretKeyRef.Key, v.SecretKeyRef.Optional)
	case v.FieldRef != nil:
		value, err := s.field(v.FieldRef.FieldPath)
		return value, err == nil, err
	case v.ResourceFieldRef != nil:
		value, err := s.resource(c, v.ResourceFieldRef)
		return value, err == nil, err
	}
	return "", false, fmt.Errorf("a reference of a kind that podnet does not know")
}

// field is a field of the pod, as the downward API has it.
func (s Source) field(path string) (string, error) {
	for prefix, from := range map[string]map[string]string{"metadata.labels": s.Meta.Labels, "metadata.annotations": s.Meta.Annotations} {
		if key, ok := strings.CutPrefix(path, prefix+"['"); ok {
			return from[strings.TrimSuffix(key, "']")], nil
		}
	}
	ips := func(first string, all []string) string {
		return strings.Join(slices.Compact(append([]string{first}, all...)), ",")
	}
	var pods, hosts []string
	for _, ip := range s.Status.PodIPs {
		pods = append(pods, ip.IP)
	}
	for _, ip := range s.Status.HostIPs {
		hosts = append(hosts, ip.IP)
	}
	value, ofPod := "", true
	switch path {
	case "metadata.namespace":
		value, ofPod = s.Meta.Namespace, false
	case "spec.serviceAccountName":
		value, ofPod = cmp.Or(s.Template.ServiceAccountName, "default"), false
	case "metadata.name":
		value = s.Meta.Name
	case "metadata.uid":
		value = string(s.Meta.UID)
	case "spec.nodeName":
		value = s.Template.NodeName
	case "status.podIP":
		value = s.Status.PodIP
	case "status.podIPs":
		value = ips(s.Status.PodIP, pods)
	case "status.hostIP":
		value = s.Status.HostIP
	case "status.hostIPs":
		value = ips(s.Status.HostIP, hosts)
	default:
		return "", fmt.Errorf("the field %s is none that podnet knows", path)
	}
	if ofPod && !s.Pod {
		return "", fmt.Errorf("%s is a pod's, and there is none", path)
	}
	return value, nil
}

// resource is a limit or a request of a container, in units of the divisor, rounded up.
func (s Source) resource(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		other, _ := Find(s.Template, metav1.ObjectMeta{}, ref.ContainerName)
		if other == nil {
			return "", fmt.Errorf("there is no container %s", ref.ContainerName)
		}
		c = other
	}
	sort, name, _ := strings.Cut(ref.Resource, ".")
	list, ok := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[sort]
	if !ok {
		return "", fmt.Errorf("%s is no resource", ref.Resource)
	}
	q, ok := list[corev1.ResourceName(name)]
	if !ok {
		return "", fmt.Errorf("%s is not set: in the pod it would be the node's", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	up := func(a, b int64) int64 { return (a + b - 1) / b }
	if name == string(corev1.ResourceCPU) {
		return fmt.Sprint(up(q.MilliValue(), divisor.MilliValue())), nil
	}
	return fmt.Sprint(up(q.Value(), max(divisor.Value(), 1))), nil
}

// expand replaces $(NAME) by what is known already, and $$ by $. What is not known stays
// as it is (the API's documentation of EnvVar.value).
func expand(text string, known map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			name := text[i+2 : i+end]
			if value, ok := known[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString(text[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}
