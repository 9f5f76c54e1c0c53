// Package kube runs the lab's Kubernetes: keys and configuration files,
// components, and the objects a cluster needs before it is of use. What it
// renders is pure; what it starts, it starts on the lab's machines.
package kube

import (
	"fmt"
	"path/filepath"

	"podnet.dev/e2e/lab/internal/machine"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

// Cluster is a Kubernetes to be run.
type Cluster struct {
	State state.Dir
	Lab   topology.Lab
	Bin   string // folder of Kubernetes' programs
	// Flat is true when the state folder's file system cannot carry overlay
	// mounts, so that containers need whole copies of their images.
	Flat bool
}

func (c Cluster) pki(file string) string { return c.State.Path("pki", file) }

// WriteKeys makes every key, certificate and kubeconfig anew.
func (c Cluster) WriteKeys() error {
	ca, err := newAuthority(c.State.Path("pki"), "ca", true)
	if err != nil {
		return err
	}
	proxy, err := newAuthority(c.State.Path("pki"), "front-proxy-ca", false)
	if err != nil {
		return err
	}
	if err := proxy.sign(identity{file: "front-proxy", name: "front-proxy-client"}); err != nil {
		return err
	}
	if err := ca.keyPair("service-account"); err != nil {
		return err
	}
	for _, id := range c.identities() {
		if err := ca.sign(id); err != nil {
			return err
		}
	}
	return c.writeKubeconfigs()
}

// identities are all holders of a certificate of the cluster's authority.
func (c Cluster) identities() []identity {
	cp := c.Lab.ControlPlane()
	api := identity{file: "kube-apiserver", name: "kube-apiserver", hosts: []string{
		"localhost", "127.0.0.1", "::1", cp.Name, APIName,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		cp.Addr4.String(), cp.Addr6.String(), cp.Public4.String(), cp.Public6.String(), c.Lab.API4.String(),
	}}
	if c.Lab.API6.IsValid() {
		api.hosts = append(api.hosts, c.Lab.API6.String())
	}
	ids := []identity{
		api,
		{file: "kubelet-client", name: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		{file: "kube-controller-manager", name: "system:kube-controller-manager"},
		{file: "kube-scheduler", name: "system:kube-scheduler"},
		{file: "kube-proxy", name: "system:kube-proxy"},
	}
	for _, n := range c.Lab.Of(topology.Node) {
		ids = append(ids, identity{
			file: "kubelet-" + n.Name, name: "system:node:" + n.Name, groups: []string{"system:nodes"},
			hosts: []string{n.Name, n.Addr4.String(), n.Addr6.String()},
		})
	}
	for _, u := range machine.Users {
		ids = append(ids, identity{file: u.Name, name: u.Name, groups: u.Groups})
	}
	return ids
}

// APIName is a name for the API server in the lab's internet.
const APIName = "api.lab.example.test"

// machineOf tells which components run on which node.
func component(name string, m topology.Machine) string {
	return fmt.Sprintf("%s-%s", name, m.Name)
}

func (c Cluster) program(name string) string { return filepath.Join(c.Bin, name) }
