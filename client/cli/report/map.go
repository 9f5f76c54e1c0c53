package report

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"podnet.dev/client/cli/answer"
	"podnet.dev/client/cli/caller"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
	"podnet.dev/internal/remap"
)

func newMap(env *caller.Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "map [ADDRESS|PREFIX]",
		Short: "Say at which address this machine sees one of the cluster",
		Long: `Say at which address this machine sees an address or a prefix of the cluster,
and with a virtual one, whose it is. Without an argument: all of the cluster's
networks, each with what stands for it. Where the cluster's addresses are its
own they stand for themselves.

A virtual address that this session's DNS has not given out leads nowhere, so
that a web page which guesses one gets no answer. One that is asked for here is
given out by that, for the session; a prefix is told, and gives out nothing.

  podnet map 10.244.1.7        100.80.1.7
  podnet map 100.80.1.7        10.244.1.7
  podnet map 10.96.0.0/16      100.81.0.0/16`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit.Usagef("one address or prefix, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			asked := strings.Join(args, "")
			if _, _, ok := parsePlace(asked); !ok && len(args) > 0 {
				return exit.Usagef("%q is no address and no prefix: want 10.244.1.7 or 10.96.0.0/16", asked)
			}
			c, _ := session.Client(cmd)
			s, err := session.Status(cmd.Context(), c)
			if err != nil {
				return err
			}
			connection, err := session.Of(s, session.NameOf(cmd))
			switch {
			case err != nil:
				return err
			case connection.Addresses.Mode == "":
				return session.NotConnected(localapi.ErrNoDaemon)
			}
			m, err := mapped(connection, asked)
			if err != nil {
				return err
			}
			if v := m.single(); v != "" {
				if err := session.Set(cmd.Context(), c.OpenAddress, v); err != nil {
					return err
				}
			}
			if answer.ForPrograms(output) {
				return answer.Print(env.Out, output, m)
			}
			if m.Mode == "direct" {
				fmt.Fprintln(env.Notes(), "the cluster's addresses are its own on this machine")
			}
			for _, p := range m.Map {
				switch {
				case asked == "":
					fmt.Fprintln(env.Out, p.Real, p.Virtual)
				case m.backwards:
					fmt.Fprintln(env.Out, p.Real)
				default:
					fmt.Fprintln(env.Out, p.Virtual)
				}
			}
			return nil
		},
	}
	answer.Flag(cmd.Flags(), &output, answer.FactForms, "")
	session.Flag(cmd)
	return cmd
}

// addressMap is the answer of map, and a promise with -o json.
type addressMap struct {
	APIVersion string                   `json:"apiVersion"`
	Kind       string                   `json:"kind"`
	Connection string                   `json:"connection"`
	Mode       string                   `json:"mode"`
	Map        []localapi.VirtualPrefix `json:"map"`
	// backwards says that a virtual address was asked for.
	backwards bool
}

// Rows makes the networks the rows of a table.
func (addressMap) Rows() string { return "map" }

// single is the virtual address where one was asked for, "" else.
func (m addressMap) single() string {
	if len(m.Map) != 1 || m.Map[0].Real == m.Map[0].Virtual || strings.Contains(m.Map[0].Virtual, "/") {
		return ""
	}
	return m.Map[0].Virtual
}

// parsePlace reads an address, as the prefix that has it alone, or a prefix.
func parsePlace(text string) (p netip.Prefix, single, ok bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true, true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), false, err == nil
}

// mapped finds what stands for the address or prefix asked for, which is sound; for
// all of the cluster's networks when it is empty. Of a prefix that is wider than one
// of the cluster's networks it finds all that are inside.
func mapped(c localapi.Connection, asked string) (addressMap, error) {
	out := addressMap{APIVersion: localapi.APIVersion, Kind: "AddressMap", Connection: c.Name, Mode: c.Addresses.Mode, Map: []localapi.VirtualPrefix{}}
	all, virtual, err := networks(c)
	if err != nil {
		return out, err
	}
	want, single, _ := parsePlace(asked)
	add := func(real, virtual netip.Prefix) {
		v := localapi.VirtualPrefix{Real: real.String(), Virtual: virtual.String()}
		if single {
			v = localapi.VirtualPrefix{Real: real.Addr().String(), Virtual: virtual.Addr().String()}
		}
		out.Map = append(out.Map, v)
	}
	if v, ok := virtual.VirtualPrefix(want); ok {
		add(want, v)
		return out, nil
	}
	if r, ok := virtual.RealPrefix(want); ok {
		out.backwards = true
		add(r, want)
		return out, nil
	}
	for _, p := range all {
		switch {
		case asked == "", want.Overlaps(p.Real) && want.Bits() <= p.Real.Bits():
			add(p.Real, p.Virtual)
		case want.Overlaps(p.Real): // a part of what stands for itself
			add(want, want)
		}
	}
	if len(out.Map) == 0 {
		return out, &localapi.Error{Code: localapi.CodeNotFound, Message: fmt.Sprintf("%s is in none of the networks of %s", asked, c.Name),
			Hint: "podnet map lists them", Status: http.StatusNotFound}
	}
	return out, nil
}

// networks are all of a cluster's, each with what stands for it, if only itself;
// virtual are those with another.
func networks(c localapi.Connection) (all []remap.Pair, virtual remap.Map, err error) {
	for _, v := range c.Addresses.Map {
		p, err := remap.ParsePair(v.Real, v.Virtual)
		if err != nil {
			return nil, virtual, err
		}
		all = append(all, p)
	}
	if virtual, err = remap.Parse(all); err != nil {
		return nil, virtual, err
	}
	for _, text := range c.Routes {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, virtual, err
		}
		if _, ok := virtual.RealPrefix(r); !ok {
			all = append(all, remap.Pair{Real: r, Virtual: r})
		}
	}
	return all, virtual, nil
}
