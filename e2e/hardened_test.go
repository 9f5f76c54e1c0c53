//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGatewayHasNoPrivileges looks at the gateway that runs: what the kernel says of its
// process, and what the cluster enforces around it.
func TestGatewayHasNoPrivileges(t *testing.T) {
	if level := kubectl("get", "namespace", "podnet-system", "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`).must(t); level != "restricted" {
		t.Errorf("its namespace enforces %q", level)
	}
	var pod struct {
		Spec struct {
			Volumes []struct {
				Name      string
				Projected *struct {
					Sources []struct {
						ServiceAccountToken *struct{ ExpirationSeconds int }
					}
				}
			}
		}
		Status struct{ PodIP string }
	}
	if err := json.Unmarshal([]byte(kubectl("get", "pod", "-n", "podnet-system", "podnet-gateway-0", "-o", "json").must(t)), &pod); err != nil {
		t.Fatal(err)
	}
	tokens := 0
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			t.Errorf("volume %s is not a projected one", v.Name)
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken == nil {
				continue
			}
			tokens++
			const hour = 3600 + 7 // the 7 s are Kubernetes' own, by which it knows tokens that it has added
			if n := s.ServiceAccountToken.ExpirationSeconds; n > hour {
				t.Errorf("its token lives for %d s", n)
			}
		}
	}
	if tokens != 1 {
		t.Errorf("it has %d tokens", tokens)
	}

	pid := node1.sh("for p in $(ip netns pids " + netns(t, pod.Status.PodIP) + "); do grep -q gateway /proc/$p/comm && echo $p; done").must(t)
	status := node1.cmd("cat", "/proc/"+pid+"/status").must(t)
	var is []string
	for name, want := range map[string]string{
		"Uid": "65532 65532 65532 65532", "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2", // 2: a filter, the container runtime's
	} {
		got := strings.Join(strings.Fields(strings.TrimPrefix(lineWith(status, name+":"), name+":")), " ")
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
		is = append(is, name+" "+got)
	}
	root := strings.Fields(lineWith(node1.cmd("cat", "/proc/"+pid+"/mounts").must(t), " / "))
	if len(root) < 4 || !slices.Contains(strings.Split(root[3], ","), "ro") {
		t.Errorf("its root is mounted as %v", root)
	}
	slices.Sort(is)
	report(t, "[42] the gateway's process", fmt.Sprintf("%s, root read-only", strings.Join(is, ", ")))
}
