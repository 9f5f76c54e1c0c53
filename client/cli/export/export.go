// Package export has podnet export, which lets devices without podnet in by WireGuard's own
// configuration, and shuts them out again.
package export

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/flags"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// leaseExport is how long a device without podnet outlives the laptop that renews
// it, unless asked otherwise: until the same time of the next day.
const leaseExport = 24 * time.Hour

// undoTime is for a device that got no configuration to be shut out again.
const undoTime = 10 * time.Second

// maxQR is how many bytes a QR code takes at most: version 40 with the least
// redundancy (ISO/IEC 18004).
const maxQR = 2953

// exportFlags are what an export is asked for.
type exportFlags struct {
	req   localapi.ExportRequest
	lease time.Duration
	dns   []string
	qr    bool
	file  string
}

func Command(env *caller.Env) *cobra.Command {
	var o exportFlags
	cmd := &cobra.Command{
		Use:   "export [--qr] [-n NAMESPACE]...",
		Short: "Make a WireGuard configuration for a device without podnet",
		Long: `Make a configuration for wg-quick, or for WireGuard's app on a phone, with a
key of its own: the device reaches the cluster's pods and Services by address and
by name, as far as you may, without podnet on it. The gateway must have a UDP
endpoint (podnet install --node-port, --udp-service or --advertise).

  podnet export --qr --name phone         to be read by the phone's camera
  podnet export -n shop -o shop.conf      then: wg-quick up ./shop.conf
  podnet export list
  podnet export revoke phone

The private key is printed once and kept nowhere. The device is let in for
--lease, and longer while this machine's podnet daemon runs, which renews that as
long as you may do it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			var err error
			if o.req.Kube, err = env.Kube.Kube(env.Environ); err != nil {
				return exit.Usagef("%v", err)
			}
			return runExport(cmd, env, o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVarP(&o.req.Namespaces, "namespace", "n", nil, "namespace to open, repeatable; the first one's names need no suffix (default: the context's)")
	f.BoolVarP(&o.req.AllNamespaces, "all-namespaces", "A", false, "open every namespace")
	f.StringVar(&o.req.GatewayNamespace, "gateway-namespace", "podnet-system", "namespace that podnet is installed in")
	f.StringVar(&o.req.Device, "name", "device", "what lists call the device")
	f.DurationVar(&o.lease, "lease", leaseExport, "how long the gateway keeps the device after the last renewal, 1m to 168h")
	f.StringSliceVar(&o.dns, "dns", nil, "resolver of the device for names that are not the cluster's, repeatable")
	f.BoolVar(&o.qr, "qr", false, "print a QR code")
	f.StringVarP(&o.file, "file", "o", "", "write the configuration to a new file that only you can read")
	for _, name := range []string{"name", "lease", "dns", "qr", "file"} {
		f.Lookup(name).Annotations = map[string][]string{flags.NoVariable: {}}
	}
	env.Kube.AddTo(f)
	cmd.AddCommand(newExportList(env), newExportRevoke(env))
	return cmd
}

// check finds what can be known to be wrong without a cluster.
func (o *exportFlags) check() error {
	if err := localapi.CheckNamespaces(o.req.Namespaces, o.req.AllNamespaces, o.req.GatewayNamespace); err != nil {
		return err
	}
	o.req.Resolvers = nil
	for _, text := range o.dns {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return exit.Usagef("resolver %q: want an address, as in --dns 192.168.1.1", text)
		}
		o.req.Resolvers = append(o.req.Resolvers, a)
	}
	o.req.LeaseSeconds = int32(min(o.lease, 2*localapi.ExportLeaseMax) / time.Second)
	return o.req.Check()
}

// runExport lets a device in and hands its configuration over. A configuration that
// nobody got lets nobody in.
func runExport(cmd *cobra.Command, env *caller.Env, o exportFlags) (err error) {
	ctx := cmd.Context()
	var file *os.File
	if o.file != "" {
		if file, err = os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return &localapi.Error{Code: localapi.CodeUsage, Message: "write the configuration: " + err.Error(), Hint: "-o names a file that is not there yet"}
		}
		defer func() {
			if err != nil {
				_ = os.Remove(o.file)
			}
		}()
	}
	c, socket := session.Client(cmd)
	if err := session.Summon(ctx, env, c, socket); err != nil {
		return err
	}
	made, err := c.Export(ctx, o.req)
	if err != nil {
		return err
	}
	if err := hand(env, o, file, made.Config); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		if _, failed := c.RevokeExports(undo, localapi.ExportRevokeRequest{Kube: o.req.Kube, Names: []string{made.Export.Name}}); failed != nil {
			fmt.Fprintf(env.Err, "warning: %s may stay until its lease ends: %v\n", made.Export.Name, failed)
		}
		return err
	}
	tellExport(env, o, made.Export)
	return nil
}

// hand puts the configuration where it was asked for, and closes the file.
func hand(env *caller.Env, o exportFlags, file *os.File, config string) error {
	if file != nil {
		_, err := file.WriteString(config)
		if closed := file.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	switch {
	case o.qr:
		bare := withoutComments(config)
		if len(bare) > maxQR {
			return &localapi.Error{Code: localapi.CodeUsage, Message: fmt.Sprintf("the configuration has %d bytes, and a QR code takes %d", len(bare), maxQR), Hint: "podnet export -o FILE"}
		}
		qrterminal.GenerateHalfBlock(bare, qrterminal.L, env.Out)
	case file == nil:
		if _, err := fmt.Fprint(env.Out, config); err != nil {
			return fmt.Errorf("print the configuration: %w", err)
		}
	}
	return nil
}

// withoutComments spares a QR code what only people read.
func withoutComments(config string) string {
	var b strings.Builder
	for line := range strings.Lines(config) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			b.WriteString(line)
		}
	}
	return b.String()
}

func newExportList(env *caller.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Say which devices were let in from this machine, and until when",
		Long: `Say which devices were let in from this machine, and until when. Those in the
cluster of the kubeconfig are looked at, and renewed from now on.`,
		Args: flags.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, kube, err := exporting(cmd, env)
			if err != nil {
				return err
			}
			list, err := c.Exports(cmd.Context(), localapi.ExportListRequest{Kube: kube})
			if err != nil {
				return err
			}
			switch {
			case answer.ForPrograms(output):
				return answer.Print(env.Out, output, list)
			case output == answer.Name:
				return answer.Names(env.Out, list.Exports, func(e localapi.Export) string { return e.Name })
			}
			printExports(words.Shown(env.Out), list.Exports, time.Now())
			return nil
		},
	}
	answer.Flag(cmd.Flags(), &output, answer.ListForms, "")
	env.Kube.AddTo(cmd.Flags())
	return cmd
}

// exporting is the daemon, started where there is none, and the cluster that is
// meant.
func exporting(cmd *cobra.Command, env *caller.Env) (*localapi.Client, localapi.Kube, error) {
	kube, err := env.Kube.Kube(env.Environ)
	if err != nil {
		return nil, kube, exit.Usagef("%v", err)
	}
	c, socket := session.Client(cmd)
	return c, kube, session.Summon(cmd.Context(), env, c, socket)
}

func newExportRevoke(env *caller.Env) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke NAME... | --all",
		Short: "Shut devices out again",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return &localapi.Error{Code: localapi.CodeUsage, Message: "want names of devices, or --all", Hint: "podnet export list"}
			}
			c, kube, err := exporting(cmd, env)
			if err != nil {
				return err
			}
			r, err := c.RevokeExports(cmd.Context(), localapi.ExportRevokeRequest{Kube: kube, Names: names, All: all})
			if err != nil {
				return err
			}
			for _, name := range r.Exports {
				fmt.Fprintf(env.Notes(), "%s revoked\n", name)
			}
			if len(r.Exports) == 0 {
				fmt.Fprintln(env.Notes(), "nothing is exported to this cluster from this machine")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that were let in from this machine into the cluster of the kubeconfig")
	env.Kube.AddTo(cmd.Flags())
	return cmd
}
