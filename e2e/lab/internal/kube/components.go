package kube

import (
	"fmt"

	"podnet.dev/e2e/lab/internal/topology"
)

// Component is a program to run on a machine.
type Component struct {
	Name    string
	Machine topology.Machine
	Argv    []string
}

// Names of the components of the control plane.
const (
	Etcd              = "etcd"
	APIServer         = "apiserver"
	ControllerManager = "controller-manager"
	Scheduler         = "scheduler"
)

// ControlPlane are the components that run on the first node only.
func (c Cluster) ControlPlane() []Component {
	m := c.Lab.ControlPlane()
	return []Component{
		// etcd's data is in memory: nothing of a lab outlives it.
		{Etcd, m, []string{"etcd", "--name=lab", "--data-dir=/run/etcd",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=lab=http://127.0.0.1:2380", "--logger=zap", "--log-level=warn"}},
		{APIServer, m, c.apiServer(m)},
		{ControllerManager, m, []string{c.program("kube-controller-manager"),
			"--kubeconfig=" + c.State.Kubeconfig("kube-controller-manager"),
			"--authentication-kubeconfig=" + c.State.Kubeconfig("kube-controller-manager"),
			"--authorization-kubeconfig=" + c.State.Kubeconfig("kube-controller-manager"),
			"--use-service-account-credentials",
			"--service-account-private-key-file=" + c.pki("service-account.key"),
			"--root-ca-file=" + c.pki("ca.crt"),
			"--cluster-signing-cert-file=" + c.pki("ca.crt"), "--cluster-signing-key-file=" + c.pki("ca.key"),
			"--allocate-node-cidrs", "--cluster-cidr=" + c.Lab.PodCIDRs(),
			"--service-cluster-ip-range=" + c.Lab.ServiceCIDRs(),
			"--leader-elect=false", "--bind-address=127.0.0.1",
			// Each controller gets an identity of its own at start; the default
			// limits stretch that to seconds.
			"--kube-api-qps=1000", "--kube-api-burst=1000",
		}},
		{Scheduler, m, []string{c.program("kube-scheduler"),
			"--kubeconfig=" + c.State.Kubeconfig("kube-scheduler"),
			"--authentication-kubeconfig=" + c.State.Kubeconfig("kube-scheduler"),
			"--authorization-kubeconfig=" + c.State.Kubeconfig("kube-scheduler"),
			"--leader-elect=false", "--bind-address=127.0.0.1",
		}},
	}
}

// OIDCIssuer is the OpenID Connect issuer that the API server trusts: on its own
// machine, with a certificate of the cluster's authority.
const OIDCIssuer = "https://127.0.0.1:6480"

func (c Cluster) apiServer(m topology.Machine) []string {
	return []string{c.program("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + m.Addr4.String(), "--secure-port=6443",
		"--tls-cert-file=" + c.pki("kube-apiserver.crt"), "--tls-private-key-file=" + c.pki("kube-apiserver.key"),
		"--client-ca-file=" + c.pki("ca.crt"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		"--service-cluster-ip-range=" + c.Lab.ServiceCIDRs(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.pki("service-account.pub"),
		"--service-account-signing-key-file=" + c.pki("service-account.key"),
		// An issuer that only some tests run. Until one answers the API server asks
		// again every ten seconds, and knows nobody by such tokens.
		"--oidc-issuer-url=" + OIDCIssuer, "--oidc-client-id=podnet-lab", "--oidc-ca-file=" + c.pki("ca.crt"),
		"--oidc-username-claim=sub", "--oidc-username-prefix=oidc:", "--oidc-groups-claim=groups",
		// Port-forward, exec and logs go to the kubelet at its address.
		"--kubelet-client-certificate=" + c.pki("kubelet-client.crt"), "--kubelet-client-key=" + c.pki("kubelet-client.key"),
		"--kubelet-certificate-authority=" + c.pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		// For aggregated APIs.
		"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.pki("front-proxy.crt"), "--proxy-client-key-file=" + c.pki("front-proxy.key"),
		"--audit-policy-file=" + c.State.Path("etc", "audit-policy.yaml"),
		"--audit-log-path=" + c.State.Path("log", "audit.log"), "--audit-log-maxsize=200",
		"--profiling=false",
		"--shutdown-delay-duration=0s", "--shutdown-send-retry-after=false",
	}
}

// Containerd is a node's container runtime.
func (c Cluster) Containerd(m topology.Machine) Component {
	return Component{component("containerd", m), m, []string{"containerd", "--config=" + c.conf(m, "containerd.toml")}}
}

// NodeComponents are what runs on every node once the API server answers.
func (c Cluster) NodeComponents(m topology.Machine) []Component {
	return []Component{
		{component("kubelet", m), m, []string{c.program("kubelet"),
			"--config=" + c.conf(m, "kubelet.yaml"),
			"--kubeconfig=" + c.State.Kubeconfig("kubelet-"+m.Name),
			"--hostname-override=" + m.Name, "--node-ip=" + c.Lab.NodeIPs(m),
			"--root-dir=/var/lib/kubelet", "--cert-dir=/var/lib/kubelet/pki",
		}},
		{component("kube-proxy", m), m, []string{c.program("kube-proxy"), "--config=" + c.conf(m, "kube-proxy.yaml")}},
	}
}

// nodeObject is the Node as the lab makes it before its kubelet starts, so
// that its pod networks are the ones the router knows.
func (c Cluster) nodeObject(m topology.Machine) string {
	cidrs := fmt.Sprintf("%q", m.Pods4)
	if m.Pods6.IsValid() {
		cidrs += fmt.Sprintf(", %q", m.Pods6)
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata:
  name: %[1]s
  labels: {kubernetes.io/hostname: %[1]s, kubernetes.io/os: linux}
spec:
  podCIDR: %[2]q
  podCIDRs: [%[3]s]
`, m.Name, m.Pods4, cidrs)
}
