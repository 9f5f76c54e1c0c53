package kube

import (
	_ "embed"
	"strings"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/topology"
	"podnet.dev/e2e/shop/manifests"
)

// objects/*.yaml hold $NAMES for what depends on the lab's plan.
var (
	//go:embed objects/coredns.yaml
	coreDNSYAML string
	//go:embed objects/rbac.yaml
	rbacYAML string
	//go:embed objects/grant.yaml
	grantYAML string
)

// Nodes are the Node objects.
func (c Cluster) Nodes() string {
	var nodes []string
	for _, n := range c.Lab.Of(topology.Node) {
		nodes = append(nodes, c.nodeObject(n))
	}
	return strings.Join(nodes, "---\n")
}

// Objects are what makes the cluster useful: DNS, the users' permissions and
// the sample shop.
func (c Cluster) Objects() string {
	dns := strings.NewReplacer(
		"$IMAGE", assets.CoreDNSImage, "$CLUSTER_IP", c.Lab.DNS4.String(), "$UPSTREAM", topology.Internet4.String(),
	).Replace(coreDNSYAML)
	return strings.Join([]string{dns, rbacYAML, c.shop()}, "\n---\n")
}

// shop is the sample shop. In a further cluster its answers tell which one it is in.
func (c Cluster) shop() string {
	yaml := string(manifests.YAML)
	if name := c.Lab.Options.Cluster; name != "" {
		yaml = strings.ReplaceAll(yaml, "args: [", "args: [--cluster="+name+", ")
	}
	return yaml
}

// Grant is what an administrator adds after "podnet install": who may use it.
func (c Cluster) Grant() string { return grantYAML }
