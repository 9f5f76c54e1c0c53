package localapi

import (
	"context"
	"net/http"
	"net/url"
)

// Context is one of a kubeconfig's: a cluster, and whom it is spoken to as.
type Context struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	User    string `json:"user"`
	// Namespace is the context's own; empty means default.
	Namespace string `json:"namespace,omitempty"`
	// Server is the API server's URL; empty where the kubeconfig has no such cluster.
	Server string `json:"server,omitempty"`
	// Current says that it is the one which a caller means who names none.
	Current bool `json:"current,omitempty"`
}

// ContextsRequest asks for the contexts of the kubeconfig that the caller means.
type ContextsRequest struct {
	Kube Kube `json:"kube"`
}

// ContextList are the contexts of a kubeconfig, by name.
type ContextList struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Contexts   []Context `json:"contexts"`
}

// NewContextList is a list of contexts.
func NewContextList(all []Context) ContextList {
	return ContextList{APIVersion, "ContextList", append([]Context{}, all...)}
}

// NamespaceList are names of namespaces, sorted.
type NamespaceList struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Namespaces []string `json:"namespaces"`
}

// NewNamespaceList is a list of namespaces.
func NewNamespaceList(all []string) NamespaceList {
	return NamespaceList{APIVersion, "NamespaceList", append([]string{}, all...)}
}

// Service is one of a cluster's.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Type is Kubernetes': ClusterIP, NodePort, LoadBalancer or ExternalName.
	Type string `json:"type"`
	// ClusterIP is the cluster's own word for the address, whatever this machine has
	// in its place; None where there is none.
	ClusterIP string        `json:"clusterIP,omitempty"`
	Ports     []ServicePort `json:"ports"`
}

// ServicePort is one port of a Service.
type ServicePort struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"` // TCP, UDP or SCTP
	Port     int32  `json:"port"`
	// URL is by which a browser of this machine opens it; empty where nothing says
	// that HTTP is spoken there.
	URL string `json:"url,omitempty"`
}

// ServiceList are the Services of a namespace, by name.
type ServiceList struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Services   []Service `json:"services"`
}

// NewServiceList is a list of Services.
func NewServiceList(all []Service) ServiceList {
	return ServiceList{APIVersion, "ServiceList", append([]Service{}, all...)}
}

// Contexts lists what the caller's kubeconfig offers. No cluster is asked.
func (c *Client) Contexts(ctx context.Context, kube Kube) ([]Context, error) {
	var l ContextList
	err := c.do(ctx, http.MethodPost, "/v1/contexts", ContextsRequest{kube}, &l)
	return l.Contexts, err
}

// Namespaces lists those of the session's cluster that the user may list, and where
// he may not those that the session has open.
func (c *Client) Namespaces(ctx context.Context) ([]string, error) {
	var l NamespaceList
	err := c.do(ctx, http.MethodGet, "/v1/namespaces", nil, &l)
	return l.Namespaces, err
}

// Services lists the Services of a namespace of the session's cluster; "" is the
// one whose names need no suffix.
func (c *Client) Services(ctx context.Context, namespace string) ([]Service, error) {
	var l ServiceList
	err := c.do(ctx, http.MethodGet, "/v1/services?"+url.Values{"namespace": {namespace}}.Encode(), nil, &l)
	return l.Services, err
}
