package deploy

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"podnet.dev/internal/limits"
)

// Options are what may be chosen at an install. The zero value of a field
// means its default.
type Options struct {
	// Namespace is the gateway's own; podnet-system by default.
	Namespace string
	// Namespaced has the gateway serve its namespace alone, without the Kubernetes
	// API: whoever holds the role edit there may apply what is rendered.
	Namespaced bool
	// Image is the gateway's image. Required.
	Image string
	// AgentImage is the image that clients put into the pods they steer. Required;
	// best by digest.
	AgentImage string
	// PullPolicy of both images is IfNotPresent (the default), Always or Never.
	PullPolicy string
	// ImagePullSecrets name Secrets in Namespace for a private registry.
	ImagePullSecrets []string
	// Replicas is how many gateways to run, 1 (the default) to 9. Each admits
	// every peer; a laptop uses one and moves to another when that one is gone.
	Replicas int32
	// UDPService is "", NodePort or LoadBalancer: how to publish WireGuard's
	// UDP port. Without it every session goes through the API server.
	UDPService string
	// NodePort is the first gateway's port when UDPService is NodePort, the
	// others' follow; 0 lets the cluster choose. Setting it alone means NodePort.
	NodePort int32
	// Advertise lists further UDP endpoints, ip:port, that lead to the (only)
	// gateway, such as a port forwarded by a router.
	Advertise []string
	// PodCIDRs are the ranges of pods that laptops are to route, in place of what
	// nodes declare; for clusters whose CNI does not go by that. Each family
	// (IPv4, IPv6) that is not among them is found out as ever.
	PodCIDRs []string
	// ServiceCIDRs are the same for Services; with Namespaced only, where nobody may
	// read which there are.
	ServiceCIDRs []string
	// STUN lists servers, host:port, at most MaxSTUN, that gateways and laptops
	// ask how NATs show them to the world, so that UDP gets through without a
	// published port. None by default: nobody outside is asked unless told so.
	STUN []string
	// DNSDomain is the cluster's zone; "" lets the gateway find out.
	DNSDomain string
	// Memory is a gateway's limit; 512Mi by default.
	Memory string
	// RequestMemory and RequestCPU are what a node keeps for a gateway; what 100 laptops
	// take by default (docs/install.md says from which measurements), and of memory no
	// more than there may be.
	RequestMemory, RequestCPU string
	// Limits are NAME=VALUE, what users and a gateway may have at most, in place of
	// the defaults of package limits.
	Limits []string
	// UserMetrics puts users' names into the gateway's metrics.
	UserMetrics bool
	// NoNetworkPolicy leaves out the NetworkPolicy about who may call the gateways.
	NoNetworkPolicy bool
	// MetricsFrom are the namespaces whose pods may scrape the metrics; none: all.
	MetricsFrom []string
	// LogLevel is debug, info (the default), warn or error.
	LogLevel string
	// Users and Groups may connect: they are bound to podnet-connect and
	// podnet-developer. Which namespaces they reach is not decided here.
	Users, Groups []string
}

// GatewayUser is how the API server knows the gateway.
func (o Options) GatewayUser() string {
	return "system:serviceaccount:" + o.Namespace + ":" + ServiceAccountName
}

// imageRef is generous: the container runtime is the judge, this only keeps
// nonsense out.
var imageRef = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:@-]*$`)

func (o Options) withDefaults() (Options, error) {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&o.Namespace, DefaultNamespace)
	set(&o.PullPolicy, "IfNotPresent")
	set(&o.Memory, "512Mi")
	set(&o.RequestMemory, least(requestMemory, o.Memory))
	set(&o.RequestCPU, "100m")
	set(&o.LogLevel, "info")
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.NodePort != 0 {
		set(&o.UDPService, "NodePort")
	}
	return o, o.check()
}

func (o Options) check() error {
	if problems := validation.IsDNS1123Label(o.Namespace); problems != nil {
		return fmt.Errorf("namespace %q: %s", o.Namespace, strings.Join(problems, "; "))
	}
	for _, image := range []string{o.Image, o.AgentImage} {
		if !imageRef.MatchString(image) {
			return fmt.Errorf("image %q is not an image reference", image)
		}
	}
	if !oneOf(o.PullPolicy, "IfNotPresent", "Always", "Never") {
		return fmt.Errorf("pull policy %q: want IfNotPresent, Always or Never", o.PullPolicy)
	}
	if o.Replicas < 1 || o.Replicas > MaxReplicas {
		return fmt.Errorf("replicas %d: want 1 to %d", o.Replicas, MaxReplicas)
	}
	if !oneOf(o.UDPService, "", "NodePort", "LoadBalancer") {
		return fmt.Errorf("UDP service %q: want NodePort or LoadBalancer", o.UDPService)
	}
	if o.NodePort != 0 && o.UDPService != "NodePort" {
		return fmt.Errorf("node port %d: needs a UDP service of type NodePort, not %s", o.NodePort, o.UDPService)
	}
	if o.NodePort < 0 || o.NodePort+o.Replicas-1 > math.MaxUint16 {
		return fmt.Errorf("node port %d: out of range", o.NodePort)
	}
	if err := o.checkMode(); err != nil {
		return err
	}
	if len(o.Advertise) > 0 && o.Replicas > 1 {
		return fmt.Errorf("advertise %s: leads to one gateway, and there are to be %d", o.Advertise[0], o.Replicas)
	}
	for _, e := range o.Advertise {
		if a, err := netip.ParseAddrPort(e); err != nil || a.Port() == 0 {
			return fmt.Errorf("advertise %q: want ip:port", e)
		}
	}
	for _, text := range o.PodCIDRs {
		if _, err := ParseRange(text); err != nil {
			return fmt.Errorf("pod CIDR %w", err)
		}
	}
	if len(o.STUN) > MaxSTUN {
		return fmt.Errorf("%d STUN servers: %d are the most", len(o.STUN), MaxSTUN)
	}
	for _, s := range o.STUN {
		if err := CheckSTUN(s); err != nil {
			return err
		}
	}
	if o.DNSDomain != "" {
		if problems := validation.IsDNS1123Subdomain(o.DNSDomain); problems != nil {
			return fmt.Errorf("DNS domain %q: %s", o.DNSDomain, strings.Join(problems, "; "))
		}
	}
	most, err := resource.ParseQuantity(o.Memory)
	if err != nil || most.Value() < 64<<20 {
		return fmt.Errorf("memory %q: want a quantity of at least 64Mi", o.Memory)
	}
	if q, err := resource.ParseQuantity(o.RequestMemory); err != nil || q.Sign() <= 0 || q.Cmp(most) > 0 {
		return fmt.Errorf("request of memory %q: want a quantity of at most %s", o.RequestMemory, o.Memory)
	}
	if q, err := resource.ParseQuantity(o.RequestCPU); err != nil || q.Sign() <= 0 {
		return fmt.Errorf("request of CPU %q: want a quantity, such as 100m", o.RequestCPU)
	}
	for _, ns := range o.MetricsFrom {
		if problems := validation.IsDNS1123Label(ns); problems != nil {
			return fmt.Errorf("namespace %q of whoever scrapes metrics: %s", ns, strings.Join(problems, "; "))
		}
	}
	if o.NoNetworkPolicy && len(o.MetricsFrom) > 0 {
		return fmt.Errorf("metrics from %s: takes the NetworkPolicy that is to be left out", o.MetricsFrom[0])
	}
	for _, text := range o.Limits {
		if err := new(limits.Limits).Set(text); err != nil {
			return err
		}
	}
	if !oneOf(o.LogLevel, "debug", "info", "warn", "error") {
		return fmt.Errorf("log level %q: want debug, info, warn or error", o.LogLevel)
	}
	return nil
}

// requestMemory is what a node keeps for a gateway unless told otherwise.
const requestMemory = "192Mi"

// least is the lesser of two quantities; one that is none is the other's.
func least(a, b string) string {
	x, errX := resource.ParseQuantity(a)
	y, errY := resource.ParseQuantity(b)
	if errX == nil && errY == nil && y.Cmp(x) < 0 {
		return b
	}
	return a
}

// MaxReplicas is how many gateways there may be.
const MaxReplicas = 9

// checkMode finds what only one of the two modes has.
func (o Options) checkMode() error {
	if !o.Namespaced {
		if len(o.ServiceCIDRs) > 0 {
			return fmt.Errorf("service CIDR %s: only for one namespace; the whole cluster's gateway reads which there are", o.ServiceCIDRs[0])
		}
		return nil
	}
	for _, text := range o.ServiceCIDRs {
		if _, err := ParseRange(text); err != nil {
			return fmt.Errorf("service CIDR %w", err)
		}
	}
	switch {
	case o.Replicas > 1:
		return fmt.Errorf("replicas %d: one namespace has one gateway", o.Replicas)
	case o.UDPService == "LoadBalancer":
		return errors.New("UDP service LoadBalancer: the gateway of one namespace cannot learn its address; want a node port, or an address to advertise")
	case o.UDPService == "NodePort" && o.NodePort == 0:
		return errors.New("UDP service NodePort: the gateway of one namespace cannot learn the port; say which by a node port")
	case len(o.STUN) > 0:
		return errors.New("STUN: not for one namespace")
	case o.UserMetrics || len(o.MetricsFrom) > 0:
		return errors.New("metrics: the gateway of one namespace has none")
	case len(o.Users)+len(o.Groups) > 0:
		return errors.New("users and groups: for one namespace nothing is bound; who may port-forward there may connect")
	}
	return nil
}

// MaxSTUN is how many STUN servers there may be. Two tell a NAT's kind.
const MaxSTUN = 4

// CheckSTUN tells what is wrong with a STUN server's address, host:port.
func CheckSTUN(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("STUN server %q: want host:port, usually port 3478", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("STUN server %q: port %q is not within 1 to 65535", text, port)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if problems := validation.IsDNS1123Subdomain(strings.TrimSuffix(host, ".")); problems != nil {
		return fmt.Errorf("STUN server %q: %s", text, strings.Join(problems, "; "))
	}
	return nil
}

func oneOf(s string, choices ...string) bool {
	for _, c := range choices {
		if s == c {
			return true
		}
	}
	return false
}

// goMemLimit is nine tenths of the memory limit: room for what the Go heap does
// not count.
func (o Options) goMemLimit() (string, error) {
	q, err := resource.ParseQuantity(o.Memory)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(q.Value()/10*9>>20, 10) + "MiB", nil
}

func (o Options) args() []string {
	args := []string{"--log-level=" + o.LogLevel}
	if o.Namespaced {
		args = append(args, "--namespaced")
		for _, c := range o.ServiceCIDRs {
			args = append(args, "--service-cidr="+c)
		}
		if o.NodePort != 0 {
			args = append(args, "--node-port="+strconv.Itoa(int(o.NodePort)))
		}
	}
	if o.DNSDomain != "" {
		args = append(args, "--dns-domain="+o.DNSDomain)
	}
	for _, e := range o.Advertise {
		args = append(args, "--advertise="+e)
	}
	for _, c := range o.PodCIDRs {
		args = append(args, "--pod-cidr="+c)
	}
	for _, s := range o.STUN {
		args = append(args, "--stun="+s)
	}
	if o.UserMetrics {
		args = append(args, "--user-metrics")
	}
	for _, l := range o.Limits {
		args = append(args, "--limit="+l)
	}
	return args
}

// subjects are those of the bindings that come with an install.
func (o Options) subjects() []map[string]string {
	var all []map[string]string
	add := func(kind string, names []string) {
		for _, n := range names {
			all = append(all, map[string]string{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": n})
		}
	}
	add("User", o.Users)
	add("Group", o.Groups)
	return all
}

func (o Options) pullSecrets() (string, error) {
	refs := make([]map[string]string, len(o.ImagePullSecrets))
	for i, s := range o.ImagePullSecrets {
		refs[i] = map[string]string{"name": s}
	}
	return toJSON(refs)
}

// metricsFrom are the NetworkPolicy's words for those who may scrape.
func (o Options) metricsFrom() (string, error) {
	from := make([]map[string]any, len(o.MetricsFrom))
	for i, ns := range o.MetricsFrom {
		from[i] = map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]string{"kubernetes.io/metadata.name": ns}}}
	}
	return toJSON(from)
}
