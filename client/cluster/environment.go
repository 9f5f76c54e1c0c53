package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/client/localapi"
	"podnet.dev/client/podenv"
)

// Environment is what a container's specification says of its environment.
type Environment struct {
	// Container that it is of, in words.
	Container string
	// Vars are NAME=value.
	Vars []string
	// Unknown are those whose value cannot be had here, each with why.
	Unknown []string
}

// Environment reads what the environment of a target's container is made of, with our
// own rights: its specification, ConfigMaps and Secrets. A running pod of the target's
// says more than the target itself, and is asked for first.
func (c *Client) Environment(ctx context.Context, namespace, target, container string) (Environment, error) {
	t, err := ParseTarget(target, "")
	if err != nil {
		return Environment{}, err
	}
	s, where, err := c.containers(ctx, namespace, t)
	if err != nil {
		return Environment{}, err
	}
	spec, names := podenv.Find(s.Template, s.Meta, container)
	if spec == nil {
		return Environment{}, &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("%s has no container %s", where, container),
			Hint: "it has " + strings.Join(names, ", ") + ": --container NAME", Status: http.StatusNotFound}
	}
	s.ConfigMaps, s.Secrets, s.Denied = map[string]map[string][]byte{}, map[string]map[string][]byte{}, map[podenv.Ref]error{}
	for _, ref := range podenv.Needs(spec) {
		if err := c.readData(ctx, namespace, ref, s); err != nil {
			return Environment{}, err
		}
	}
	e := Environment{Container: spec.Name + " of " + where}
	e.Vars, e.Unknown = podenv.Resolve(*s, spec)
	return e, nil
}

// containers is where a target's containers are described best.
func (c *Client) containers(ctx context.Context, namespace string, t Target) (*podenv.Source, string, error) {
	k, _ := kindOf(t.Kind)
	var raw json.RawMessage
	if err := c.get(ctx, k.path(namespace)+"/"+t.Name, &raw); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, "", &NoTargetError{t, namespace}
		}
		return nil, "", c.explain("read "+t.String()+" at", err)
	}
	if t.Kind == "pod" {
		var p corev1.Pod
		err := json.Unmarshal(raw, &p)
		return sourceOf(&p), t.String(), err
	}
	_, o, err := readOwner(raw)
	if err != nil {
		return nil, "", err
	}
	pod, denied := c.podOf(ctx, namespace, t, &o)
	if pod != nil {
		return sourceOf(pod), "pod " + pod.Name, nil
	}
	if t.Kind == "svc" {
		if denied == nil {
			denied = fmt.Errorf("no pod is behind %s", t)
		}
		return nil, "", &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("there is no environment to be had from %s: %v", t, denied), Hint: "--env-from deploy/NAME", Status: http.StatusNotFound}
	}
	var w struct {
		Spec struct{ Template corev1.PodTemplateSpec }
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, "", err
	}
	s := &podenv.Source{Template: w.Spec.Template.Spec, Meta: w.Spec.Template.ObjectMeta}
	s.Meta.Namespace = namespace
	return s, t.String(), nil
}

func sourceOf(p *corev1.Pod) *podenv.Source {
	return &podenv.Source{Template: p.Spec, Meta: p.ObjectMeta, Pod: true, Status: p.Status}
}

// podOf is the oldest of an owner's pods that is ready; nil: there is none, or we may
// not look, which the error says.
func (c *Client) podOf(ctx context.Context, namespace string, t Target, o *owner) (*corev1.Pod, error) {
	selector, err := o.selector(t)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []json.RawMessage }
	if err := c.get(ctx, kinds[0].path(namespace)+"?labelSelector="+url.QueryEscape(selector), &list); err != nil {
		return nil, err
	}
	var best *corev1.Pod
	var since metav1.Time
	for _, raw := range list.Items {
		meta, p, err := readCandidate(raw)
		if err != nil {
			return nil, err
		}
		if !p.Ready || p.Terminating || p.finished || !o.owns(t, p) || best != nil && !meta.CreationTimestamp.Before(&since) {
			continue
		}
		var whole corev1.Pod
		if err := json.Unmarshal(raw, &whole); err != nil {
			return nil, err
		}
		best, since = &whole, meta.CreationTimestamp
	}
	return best, nil
}

// readData adds an object's data to a source. That it is not there, or not for us, is
// the source's to know.
func (c *Client) readData(ctx context.Context, namespace string, ref podenv.Ref, s *podenv.Source) error {
	plural, into := "configmaps", s.ConfigMaps
	if ref.Secret {
		plural, into = "secrets", s.Secrets
	}
	if !isName(ref.Name) {
		s.Denied[ref] = errors.New("that is no name of an object")
		return nil
	}
	var o struct{ Data map[string]json.RawMessage } // what is binary is in no environment
	err := c.get(ctx, "/api/v1/namespaces/"+namespace+"/"+plural+"/"+ref.Name, &o)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsForbidden(err):
		s.Denied[ref] = errors.New("you may not read " + ref.String())
		return nil
	case err != nil:
		return c.explain("read "+ref.String()+" at", err)
	}
	data := map[string][]byte{}
	for key, raw := range o.Data {
		var err error
		if ref.Secret { // base64
			var b []byte
			err = json.Unmarshal(raw, &b)
			data[key] = b
		} else {
			var text string
			err = json.Unmarshal(raw, &text)
			data[key] = []byte(text)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", ref, err)
		}
	}
	into[ref.Name] = data
	return nil
}
