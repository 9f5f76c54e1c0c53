package cli_test

import (
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

func TestNamespace(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("namespace").Want(t, exit.NotConnected, "nothing is connected")
	m.Podnet("namespace", "pay").Want(t, exit.NotConnected, "nothing is connected")
	m.Podnet("connect", "-n", "shop", "-n", "pay").Want(t, 0)
	defer m.Podnet("disconnect")
	m.Podnet("namespace").Prints(t, "shop\n")
	if m.Podnet("namespace", "pay").Want(t, 0, "short names are those of namespace pay"); m.Names.Namespace != "pay" {
		t.Errorf("%q", m.Names.Namespace)
	}
	m.Podnet("namespace", "Pay/ment").Want(t, exit.Usage, "is no name for a namespace")
	m.Podnet("namespace", "a", "b").Want(t, exit.Usage)
	m.Names.Fail = &localapi.Error{Code: localapi.CodeNotFound, Message: "namespace ops is not one of the session's: shop, pay", Hint: "podnet disconnect, then podnet connect -n ops"}
	m.Podnet("namespace", "ops").Want(t, exit.Generic, "not one of the session's", "hint: podnet disconnect")
}
