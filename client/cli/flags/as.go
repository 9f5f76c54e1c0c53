package flags

import (
	"slices"

	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
)

// impersonation are the flags of kubectl that commands do not have whose --as is
// podnet's own: beside that nobody would know what they are about. Their variables,
// PODNET_AS and others, count all the same.
var impersonation = []string{"as", "as-group", "as-uid", "as-user-extra"}

// KubeBesideAs adds kubectl's flags to a command that has an --as of its own.
// all gets those that the command does not have, too; it is to be given to
// Preset of package caller.
func KubeBesideAs(f, all *pflag.FlagSet, kube interface{ AddTo(*pflag.FlagSet) }) {
	f.Lookup("as").Annotations = map[string][]string{NoVariable: {}}
	kube.AddTo(all)
	all.VisitAll(func(fl *pflag.Flag) {
		if !slices.Contains(impersonation, fl.Name) {
			f.AddFlag(fl)
		}
	})
}

// As is podnet's own --as.
func As(f *pflag.FlagSet, req *localapi.ConnectRequest) {
	f.StringVar(&req.As, "as", "", "whose pod what this machine sends into the cluster leaves from, as deploy/web (default: the gateway)")
}

// AsHelp is what is to be known of As.
const AsHelp = `--as has what this machine sends into the cluster leave from a pod: one of the
target's that is ready, the oldest, until it goes; then the next. While there is
none, nothing leaves. It is not kubectl's impersonation, whose variables,
PODNET_AS and others, count all the same.`
