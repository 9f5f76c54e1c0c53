package admin_test

import (
	"context"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestInstall(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("install", "--dry-run", "-o", "yaml", "--image", "reg/gw:1").Want(t, 0, "yaml of reg/gw:1")
	m.Podnet("install", "--gateway-namespace", "net", "--image-pull-policy", "Never", "--node-port", "31820", "--replicas", "2", "--pod-cidr", "10.0.0.0/8,fd00:10::/48").Want(t, 0, "applied everything", "kubectl -n net create rolebinding")
	o := m.Install.Got
	if len(o.PodCIDRs) != 2 || o.Namespace != "net" || o.Namespaced || o.Image != "podnet.dev/gateway:test" || o.PullPolicy != "Never" || o.NodePort != 31820 || o.Replicas != 2 {
		t.Errorf("installed %+v", o)
	}
	m.Install.Fail = &localapi.Error{Code: localapi.CodeDeploy, Message: "image cannot be pulled", Hint: "--image"}
	m.Podnet("install").Want(t, exit.Deploy, "image cannot be pulled")
	m.Install.Fail = context.DeadlineExceeded
	m.Podnet("install", "--timeout", "20ms").Want(t, exit.Timeout, "20ms")
	m.Install.Fail = nil
	m.Podnet("uninstall").Want(t, 0, "podnet is gone")
}

func TestInstallForOneNamespace(t *testing.T) {
	m := fakemachine.New(t)
	m.Environ = []string{"PODNET_NAMESPACE=pay"} // is connect's
	m.Podnet("install").Want(t, 0, "podnet-connect")
	if o := m.Install.Got; o.Namespaced || o.Namespace != "podnet-system" {
		t.Errorf("installed %+v", o)
	}
	m.Podnet("install", "-n", "shop", "--service-cidr", "10.96.0.0/12").Want(t, 0, "for the namespace shop", "podnet connect -n shop")
	if o := m.Install.Got; !o.Namespaced || o.Namespace != "shop" || len(o.ServiceCIDRs) != 1 {
		t.Errorf("installed %+v", o)
	}
	m.Podnet("install", "-n", "shop", "--gateway-namespace", "net").Want(t, exit.Usage, "do not go together")
	m.Podnet("uninstall").Want(t, 0, "podnet is gone")
	if m.Install.Gone != "" {
		t.Errorf("uninstalled from %q", m.Install.Gone)
	}
	m.Podnet("uninstall", "--namespace", "shop").Want(t, 0, "podnet is gone")
	if m.Install.Gone != "shop" {
		t.Errorf("uninstalled from %q", m.Install.Gone)
	}
}
