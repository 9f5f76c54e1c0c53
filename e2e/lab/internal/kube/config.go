package kube

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/topology"
)

// file is a rendered configuration file.
type file struct {
	path    string
	content string
}

// files are all configuration files of the cluster, in the state folder.
func (c Cluster) files() []file {
	fs := []file{{c.State.Path("etc", "audit-policy.yaml"), auditPolicy}}
	for _, n := range c.Lab.Of(topology.Node) {
		etc := func(name string) string { return filepath.Join(c.State.Machine(n.Name), "conf", name) }
		fs = append(fs,
			file{etc("containerd.toml"), c.containerdConfig(n)},
			file{etc("cni/10-podnet-lab.conflist"), c.cniConfig(n)},
			file{etc("kubelet.yaml"), c.kubeletConfig(n)},
			file{etc("kube-proxy.yaml"), c.proxyConfig(n)},
			file{etc("resolv.conf"), fmt.Sprintf("nameserver %s\n", topology.Internet4)},
			file{etc("pods.nft"), c.podMasquerade()},
		)
	}
	return fs
}

// Text is everything that was rendered for the cluster, but for its objects:
// two clusters with the same text run the same.
func (c Cluster) Text() string {
	var b strings.Builder
	for _, f := range c.files() {
		b.WriteString("#### " + f.path + "\n" + f.content + "\n")
	}
	components := c.ControlPlane()
	for _, n := range c.Lab.Of(topology.Node) {
		components = append(append(components, c.Containerd(n)), c.NodeComponents(n)...)
	}
	for _, k := range components {
		b.WriteString("#### " + k.Name + " on " + k.Machine.Name + "\n" + strings.Join(k.Argv, "\n") + "\n\n")
	}
	b.WriteString("#### nodes\n" + c.Nodes())
	return b.String()
}

// WriteFiles writes the configuration files.
func (c Cluster) WriteFiles() error {
	for _, f := range c.files() {
		if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(f.path, []byte(f.content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c Cluster) conf(m topology.Machine, name string) string {
	return filepath.Join(c.State.Machine(m.Name), "conf", name)
}

// auditPolicy records who wrote what, without the chatter of reads by the
// components themselves, and of podnet's objects what was written.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: [system:nodes, system:serviceaccounts:kube-system]
- level: None
  users: [system:kube-controller-manager, system:kube-scheduler, system:kube-proxy, system:apiserver]
- level: None
  nonResourceURLs: [/healthz*, /livez*, /readyz*, /version, /openapi*, /api, /api/*, /apis, /apis/*]
- level: Request
  verbs: [create, update, patch, delete, deletecollection]
  resources: [{group: podnet.dev}]
- level: Metadata
`

// containerdConfig is for containerd 1.6. restrict_oom_score_adj: without
// CAP_SYS_RESOURCE, as in a sandbox, runc could not lower a pod's score and
// would die.
func (c Cluster) containerdConfig(topology.Machine) string {
	snapshotter := "overlayfs"
	if c.Flat {
		snapshotter = "native"
	}
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`, assets.PauseImage, snapshotter)
}

// cniConfig gives pods a bridge per node. Masquerading is not the bridge's
// business: between nodes pods keep their addresses (see podMasquerade).
func (c Cluster) cniConfig(m topology.Machine) string {
	ranges := []any{[]any{map[string]string{"subnet": m.Pods4.String()}}}
	routes := []any{map[string]string{"dst": "0.0.0.0/0"}}
	if m.Pods6.IsValid() {
		ranges = append(ranges, []any{map[string]string{"subnet": m.Pods6.String()}})
		routes = append(routes, map[string]string{"dst": "::/0"})
	}
	list := map[string]any{
		"cniVersion": "0.4.0",
		"name":       "podnet-lab",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
				"ipam": map[string]any{"type": "host-local", "ranges": ranges, "routes": routes},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
	content, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		panic(err) // maps of strings
	}
	return string(content) + "\n"
}

// podMasquerade hides pods behind their node when they talk to the world, and
// only then.
func (c Cluster) podMasquerade() string {
	var b strings.Builder
	b.WriteString("table inet podnet-lab {\n\tchain hide {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n")
	fmt.Fprintf(&b, "\t\toifname %q ip saddr %s ip daddr != %s masquerade\n", "eth0", c.Lab.Pods4, c.Lab.Pods4)
	if c.Lab.Pods6.IsValid() {
		fmt.Fprintf(&b, "\t\toifname %q ip6 saddr %s ip6 daddr != %s masquerade\n", "eth0", c.Lab.Pods6, c.Lab.Pods6)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func (c Cluster) kubeletConfig(m topology.Machine) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true, cacheTTL: 10s}
  x509: {clientCAFile: %[1]s}
authorization: {mode: Webhook}
tlsCertFile: %[2]s
tlsPrivateKeyFile: %[3]s
clusterDNS: [%[4]s]
clusterDomain: cluster.local
resolvConf: %[5]s
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: %[6]s
failSwapOn: false
failCgroupV1: false
protectKernelDefaults: true
makeIPTablesUtilChains: false
volumePluginDir: /var/lib/kubelet/volume-plugins
registerNode: true
# The lab shares its computer, so only real emergencies count.
evictionHard: {memory.available: 50Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 0%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# What a test waits for should not wait for a timer.
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
configMapAndSecretChangeDetectionStrategy: Watch
serializeImagePulls: false
shutdownGracePeriod: 0s
`, c.pki("ca.crt"), c.pki("kubelet-"+m.Name+".crt"), c.pki("kubelet-"+m.Name+".key"),
		c.Lab.DNS4, c.conf(m, "resolv.conf"), CgroupRoot(m))
}

// proxyConfig: the conntrack settings are ones that cannot be made inside a
// network namespace, and zero leaves them alone.
func (c Cluster) proxyConfig(m topology.Machine) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
clusterCIDR: %q
mode: nftables
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, c.State.Kubeconfig("kube-proxy"), m.Name, c.Lab.PodCIDRs())
}

// CgroupRoot is the control group that holds all pods of a node, so that all
// of their processes can be found.
func CgroupRoot(m topology.Machine) string { return "/podnet-lab/" + m.Name }
