package admission

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"podnet.dev/deploy"
	"podnet.dev/e2e/apiserver"
	"podnet.dev/internal/overview"
)

// Whoever may exec into the gateways' pods may ask who is there, and run nothing else
// in the gateway's container, be it the cluster's administrator. What admission lets
// through ends at a pod that is not there.
func TestExecInTheGateway(t *testing.T) {
	s := apiserver.Start(t)
	admin := s.Admin(t)
	s.Install(t, deploy.Options{Image: "example.org/podnet-gateway:1", AgentImage: "example.org/podnet-agent:1", Groups: []string{"dev"}})
	if err := admin.Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta(system, "lead"), Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "lead"}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "podnet-top"}}); err != nil {
		t.Fatal(err)
	}
	exec := func(c *rest.Config, method, namespace, pod, container string, command ...string) error {
		h, err := rest.HTTPClientFor(c)
		if err != nil {
			return err
		}
		query := url.Values{"command": command, "stdin": {"true"}, "stdout": {"true"}}
		if container != "" {
			query.Set("container", container)
		}
		r, err := http.NewRequest(method, c.Host+"/api/v1/namespaces/"+namespace+"/pods/"+pod+"/exec?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		a, err := h.Do(r)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			return err
		}
		return fmt.Errorf("%d %s", a.StatusCode, text)
	}
	const through = `404 {`
	lead, dev, boss := s.ConfigAs("lead"), s.ConfigAs("bob", "dev"), s.Config()
	apiserver.Eventually(t, 20*time.Second, "the policy and the role work", func() error {
		for _, c := range []*rest.Config{boss, lead} {
			if err := exec(c, http.MethodPost, system, "podnet-gateway-0", "gateway", "/bin/sh"); !strings.Contains(err.Error(), deploy.ReasonExec) {
				return err
			}
		}
		return nil
	})
	for _, row := range []struct {
		what           string
		who            *rest.Config
		namespace, pod string
		container      string
		command        []string
		want           string
	}{
		{"lead looks", lead, system, "podnet-gateway-0", "gateway", overview.Command, through},
		{"lead looks without naming the container", lead, system, "podnet-gateway-0", "", overview.Command, through},
		{"lead looks at another pod there", lead, system, "other-0", "", overview.Command, "cannot"},
		{"lead looks at a pod elsewhere", lead, "default", "podnet-gateway-0", "", overview.Command, "cannot"},
		{"a developer looks", dev, system, "podnet-gateway-0", "gateway", overview.Command, "cannot"},
		{"lead shows the token", lead, system, "podnet-gateway-0", "gateway", []string{"/podnet-gateway", "--wireguard-config", "/var/run/secrets/kubernetes.io/serviceaccount/token"}, deploy.ReasonExec},
		{"lead gives top more to do", lead, system, "podnet-gateway-0", "gateway", append(overview.Command[:2:2], "--wireguard-config", "x"), deploy.ReasonExec},
		{"lead runs a shell without naming the container", lead, system, "podnet-gateway-0", "", []string{"sh"}, deploy.ReasonExec},
		{"the administrator runs a shell", boss, system, "podnet-gateway-1", "gateway", []string{"sh"}, deploy.ReasonExec},
		{"the administrator runs a shell in a container for debugging", boss, system, "podnet-gateway-0", "debugger-x2x", []string{"sh"}, through},
		{"the administrator runs a shell in another pod there", boss, system, "other-0", "", []string{"sh"}, through},
		{"the administrator runs a shell elsewhere", boss, "default", "podnet-gateway-0", "", []string{"sh"}, through},
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			if err := exec(row.who, method, row.namespace, row.pod, row.container, row.command...); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s, %s: %v, want %q", row.what, method, err, row.want)
			}
		}
	}
}
