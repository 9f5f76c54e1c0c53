package kube

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"podnet.dev/e2e/lab/internal/assets"
	"podnet.dev/e2e/lab/internal/golden"
	"podnet.dev/e2e/lab/internal/state"
	"podnet.dev/e2e/lab/internal/topology"
)

func cluster(t *testing.T, o topology.Options, dir string) Cluster {
	t.Helper()
	lab, err := topology.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return Cluster{State: state.Dir(dir), Lab: lab, Bin: "/cache/kubernetes"}
}

func TestConfiguration(t *testing.T) {
	for name, o := range map[string]topology.Options{
		"dual-stack":   {Nodes: 2, DualStack: true},
		"single-stack": {Nodes: 1},
	} {
		c := cluster(t, o, "/state")
		golden.Check(t, name+".txt", c.Text())
	}
}

// TestShopTellsItsCluster in every pod of a further one, and in none of the lab's own.
func TestShopTellsItsCluster(t *testing.T) {
	own := cluster(t, topology.Options{Nodes: 1, DualStack: true}, "/state")
	blue := cluster(t, topology.Options{Nodes: 1, DualStack: true, Cluster: "blue"}, "/state/clusters/blue")
	pods := strings.Count(own.shop(), "image: "+assets.ShopImage)
	if n := strings.Count(blue.shop(), "args: [--cluster=blue, --http"); n != pods || pods == 0 {
		t.Errorf("%d of %d kinds of pods say that they are in blue", n, pods)
	}
	if strings.Contains(own.shop(), "--cluster") {
		t.Error("the lab's own pods name a cluster")
	}
}

// TestKubeconfigHasBothClusters, the lab's own as the current one, each with its keys.
func TestKubeconfigHasBothClusters(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("homes belong to their users, which only root can arrange")
	}
	dir := t.TempDir()
	own := cluster(t, topology.Options{Nodes: 1, DualStack: true}, dir)
	blue := cluster(t, topology.Options{Nodes: 1, DualStack: true, Cluster: "blue"}, string(own.State.Cluster("blue")))
	for _, c := range []Cluster{own, blue} {
		if err := c.WriteKeys(); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(own.State.Home("laptop", "alice"), ".kube", "config")
	contexts := func() (config struct {
		CurrentContext string `json:"current-context"`
		Contexts       []struct {
			Name    string
			Context struct{ Cluster, User, Namespace string }
		}
		Clusters []struct {
			Name    string
			Cluster struct{ Server string }
		}
		Users []struct{ Name string }
	}) {
		content, err := os.ReadFile(home)
		if err == nil {
			err = yaml.Unmarshal(content, &config)
		}
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	if got := contexts(); len(got.Contexts) != 1 || got.CurrentContext != "lab" {
		t.Errorf("before there is another: %+v", got)
	}
	if err := own.WriteHomeKubeconfigs(blue); err != nil {
		t.Fatal(err)
	}
	got := contexts()
	if got.CurrentContext != "lab" || len(got.Contexts) != 2 || len(got.Clusters) != 2 || len(got.Users) != 2 || got.Users[0] == got.Users[1] ||
		got.Contexts[1].Name != "blue" || got.Contexts[1].Context.User != got.Users[1].Name || got.Clusters[1].Cluster.Server == got.Clusters[0].Cluster.Server {
		t.Errorf("%+v", got)
	}
}

// TestObjectsAreWhole reads every object as the API server would, and finds
// images that would have to be pulled.
func TestObjectsAreWhole(t *testing.T) {
	c := cluster(t, topology.Options{Nodes: 2, DualStack: true}, "/state")
	for _, docs := range []string{c.Objects(), c.Grant(), c.Nodes()} {
		for _, doc := range strings.Split(docs, "\n---\n") {
			var o struct {
				APIVersion, Kind string
				Metadata         struct{ Name string }
				Spec             struct {
					Template struct {
						Spec struct {
							Containers []struct{ Image, ImagePullPolicy string }
						}
					}
				}
			}
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Errorf("%v in:\n%s", err, doc)
				continue
			}
			if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
				t.Errorf("not an object:\n%s", doc)
			}
			for _, container := range o.Spec.Template.Spec.Containers {
				if container.ImagePullPolicy != "Never" || !strings.HasSuffix(container.Image, ":lab") {
					t.Errorf("%s %s would pull %s", o.Kind, o.Metadata.Name, container.Image)
				}
			}
			if strings.Contains(doc, "$") {
				t.Errorf("a name was not filled in:\n%s", doc)
			}
		}
	}
}

// TestKeysSayWhoTheirHoldersAre checks the chain, users and groups.
func TestKeysSayWhoTheirHoldersAre(t *testing.T) {
	c := cluster(t, topology.Options{Nodes: 1, DualStack: true}, t.TempDir())
	if os.Geteuid() != 0 {
		t.Skip("homes belong to their users, which only root can arrange")
	}
	if err := c.WriteKeys(); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, c.pki("ca.crt")))
	for name, groups := range map[string]string{
		"admin": "system:masters", "alice": "dev", "bob": "dev", "kubelet-node1": "system:nodes", "kube-apiserver": "",
	} {
		cert := certificate(t, c.pki(name+".crt"))
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(cert.Subject.Organization, ","); got != groups {
			t.Errorf("%s is in %q, want %q", name, got, groups)
		}
	}
	api := certificate(t, c.pki("kube-apiserver.crt"))
	for _, host := range []string{"10.77.1.2", "10.96.0.1", "fd00:10:96::1", "kubernetes.default.svc", APIName} {
		if err := api.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	for _, file := range []string{c.State.Kubeconfig("alice"), filepath.Join(c.State.Home("laptop2", "bob"), ".kube", "config")} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
}

func certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
