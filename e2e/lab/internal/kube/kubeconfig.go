package kube

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

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
		var pem [3][]byte
		for i, file := range []string{"ca.crt", name + ".crt", name + ".key"} {
			var err error
			if pem[i], err = os.ReadFile(c.pki(file)); err != nil {
				return err
			}
		}
		content := kubeconfig(name, c.Lab.Server(), pem[0], pem[1], pem[2])
		if err := os.WriteFile(c.State.Kubeconfig(name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return c.homeKubeconfigs()
}

// homeKubeconfigs puts each user's where kubectl looks: ~/.kube/config.
func (c Cluster) homeKubeconfigs() error {
	for _, m := range c.Lab.Of(topology.Laptop) {
		if err := os.MkdirAll(c.State.Home(m.Name, ""), 0o755); err != nil {
			return err
		}
		for _, u := range machine.Users {
			content, err := os.ReadFile(c.State.Kubeconfig(u.Name))
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

func kubeconfig(user, server string, ca, cert, key []byte) string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
contexts:
- name: lab
  context: {cluster: lab, user: %[1]s, namespace: %[6]s}
clusters:
- name: lab
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`, user, server, b64(ca), b64(cert), b64(key), contextNamespace(user))
}

// contextNamespace is what a user's context is set to: developers work in shop.
func contextNamespace(user string) string {
	switch user {
	case "alice", "bob":
		return "shop"
	}
	return "default"
}
