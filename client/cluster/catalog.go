package cluster

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/localapi"
)

// Contexts are those of the kubeconfig that kube points to, by name. It makes no
// request.
func Contexts(kube localapi.Kube) ([]localapi.Context, error) {
	silence()
	loader, from, err := source(kube)
	if err != nil {
		return nil, err
	}
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, &KubeconfigError{Source: from, Err: err}
	}
	current := raw.CurrentContext
	if named := kube.Flags["context"]; len(named) > 0 {
		current = named[0]
	}
	all := []localapi.Context{}
	for name, c := range raw.Contexts {
		out := localapi.Context{Name: name, Cluster: c.Cluster, User: c.AuthInfo, Namespace: c.Namespace, Current: name == current}
		if cluster := raw.Clusters[c.Cluster]; cluster != nil {
			out.Server = cluster.Server
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(a, b localapi.Context) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// ServicesIn lists the Services of a namespace by name. Their names are below domain
// for this machine, as web.shop is below shop.
func (c *Client) ServicesIn(ctx context.Context, namespace, domain string) ([]localapi.Service, error) {
	var list corev1.ServiceList
	switch err := c.get(ctx, servicePath(namespace, ""), &list); {
	case apierrors.IsForbidden(err):
		return nil, &ForbiddenError{User: c.User, Err: err, Ask: c.askUser(namespace), Permission: Permission{Verb: "list", Resource: "services", Namespace: namespace}}
	case err != nil:
		return nil, c.explain("list the services of", err)
	}
	all := []localapi.Service{}
	for _, s := range list.Items {
		if _, shadow := s.Labels[v1alpha1.LabelShadow]; shadow {
			continue // it stands for another one
		}
		out := localapi.Service{Namespace: namespace, Name: s.Name, Type: string(s.Spec.Type), ClusterIP: s.Spec.ClusterIP, Ports: []localapi.ServicePort{}}
		for _, p := range s.Spec.Ports {
			out.Ports = append(out.Ports, localapi.ServicePort{Name: p.Name, Protocol: string(protocolOf(p.Protocol)), Port: p.Port, URL: urlOf(s.Name+"."+domain, p)})
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(a, b localapi.Service) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// usualPorts are those where HTTP is spoken when nothing else is said.
var usualPorts = map[int32]string{80: "http", 8000: "http", 8080: "http", 443: "https", 8443: "https"}

// urlOf is by which a browser opens a port: by what the Service says of its
// protocol, or else by the port's name (Istio's custom, NAME-SUFFIX), or else by its
// number. Empty where that is not HTTP.
func urlOf(host string, p corev1.ServicePort) string {
	if protocolOf(p.Protocol) != corev1.ProtocolTCP {
		return ""
	}
	scheme := usualPorts[p.Port]
	name, _, _ := strings.Cut(strings.ToLower(p.Name), "-")
	switch name {
	case "http", "web":
		scheme = "http"
	case "https":
		scheme = "https"
	case "grpc", "tcp", "tls", "mysql", "redis", "mongo":
		scheme = ""
	}
	if p.AppProtocol != nil {
		switch strings.ToLower(*p.AppProtocol) {
		case "http", "kubernetes.io/ws":
			scheme = "http"
		case "https", "kubernetes.io/wss":
			scheme = "https"
		default: // also h2c, which no browser speaks
			scheme = ""
		}
	}
	switch {
	case scheme == "":
		return ""
	case scheme == "http" && p.Port == 80, scheme == "https" && p.Port == 443:
		return scheme + "://" + host
	}
	return scheme + "://" + host + ":" + strconv.Itoa(int(p.Port))
}
