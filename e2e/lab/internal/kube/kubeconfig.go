package kube

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"podnet.dev/e2e/lab/internal/machine"
	"podnet.dev/e2e/lab/internal/topology"
)

// writeKubeconfigs writes the components' and the users'. The users' have
// everything inside, as a cluster's admin would hand them out.
func (c Cluster) writeKubeconfigs() error {
	names := []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"}
	for _, n := range c.Lab.Of(topology.Node) {
		names = append(names, "kubelet-"+n.Name)
	}
	for _, u := range machine.Users {
		names = append(names, u.Name)
	}
	if err := os.MkdirAll(c.State.Path("kubeconfig"), 0o755); err != nil {
		return err
	}
	for _, name := range names {
		content, err := kubeconfig(name, c)
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.State.Kubeconfig(name), content, 0o600); err != nil {
			return err
		}
	}
	return c.WriteHomeKubeconfigs()
}

// WriteHomeKubeconfigs puts each user's where kubectl looks: ~/.kube/config. Others
// have a context in it beside this cluster's, which is the current one.
func (c Cluster) WriteHomeKubeconfigs(others ...Cluster) error {
	for _, m := range c.Lab.Of(topology.Laptop) {
		if err := os.MkdirAll(c.State.Home(m.Name, ""), 0o755); err != nil {
			return err
		}
		for _, u := range machine.Users {
			content, err := kubeconfig(u.Name, slices.Concat([]Cluster{c}, others)...)
			if err != nil {
				return err
			}
			file := filepath.Join(c.State.Home(m.Name, u.Name), ".kube", "config")
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(file, content, 0o600); err != nil {
				return err
			}
			for at := file; at != c.State.Home(m.Name, ""); at = filepath.Dir(at) {
				if err := os.Chown(at, u.UID, u.UID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// kubeconfig is a user's, with a context for each cluster, by its name; the first is
// the current one.
func kubeconfig(user string, clusters ...Cluster) ([]byte, error) {
	var contexts, servers, users strings.Builder
	for _, c := range clusters {
		var data [3]string
		for i, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
			pem, err := os.ReadFile(c.pki(file))
			if err != nil {
				return nil, err
			}
			data[i] = base64.StdEncoding.EncodeToString(pem)
		}
		name := c.Lab.Context()
		fmt.Fprintf(&contexts, `- name: %[1]s
  context: {cluster: %[1]s, user: %[2]s-%[1]s, namespace: %[3]s}
`, name, user, contextNamespace(user))
		fmt.Fprintf(&servers, `- name: %s
  cluster:
    server: %s
    certificate-authority-data: %s
`, name, c.Lab.Server(), data[0])
		fmt.Fprintf(&users, `- name: %s-%s
  user:
    client-certificate-data: %s
    client-key-data: %s
`, user, name, data[1], data[2])
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: %s
contexts:
%sclusters:
%susers:
%s`, clusters[0].Lab.Context(), &contexts, &servers, &users), nil
}

// contextNamespace is what a user's context is set to: developers work in shop.
func contextNamespace(user string) string {
	switch user {
	case "alice", "bob":
		return "shop"
	}
	return "default"
}
