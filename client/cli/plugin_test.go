package cli_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"podnet.dev/client/cli"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/fakemachine"
)

func TestPluginOfKubectl(t *testing.T) {
	run := func(name string, args ...string) string {
		var out bytes.Buffer
		cli.Run(t.Context(), cli.Env{Env: caller.Env{In: strings.NewReader(""), Out: &out, Err: &out, Kube: fakemachine.NewKube(), Environ: []string{"PODNET_SOCKET=" + filepath.Join(t.TempDir(), "none")}}, Name: name}, args)
		return out.String()
	}
	for _, args := range []string{"--help", "connect --help", "steer stop", "namespace", "nonsense"} {
		plain, plugin := run("podnet", strings.Fields(args)...), run("kubectl-podnet.exe", strings.Fields(args)...)
		if strings.Contains(plain, "kubectl podnet ") && args != "connect --help" || !strings.Contains(plugin, "kubectl podnet ") {
			t.Errorf("%s: as podnet\n%s\nas plugin\n%s", args, plain, plugin)
		}
	}
	if help := run("kubectl-podnet", "connect", "--help"); strings.Contains(strings.ReplaceAll(help, "kubectl podnet", ""), "podnet connect") {
		t.Errorf("podnet by its own name in\n%s", help)
	}
}
