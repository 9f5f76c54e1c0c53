package redirect

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// zone is the conntrack zone of redirected datagrams. Any number will do
	// that nobody else in the pod uses.
	zone = 0x706e
	// loopback is the index of lo in every network namespace.
	loopback = 1
	// ctDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h: the
	// connection's destination was translated.
	ctDNAT = 1 << 5
)

// ruleset is a table as it is to be. Its sets are empty; fill says what they
// hold.
type ruleset struct {
	table  *nftables.Table
	chains []*nftables.Chain
	rules  []*nftables.Rule

	redir   map[uint8]*nftables.Set // by protocol: the pod's port to the agent's
	agent   map[uint8]*nftables.Set // by protocol: the agent's ports
	steered *nftables.Set           // the pod's UDP ports
}

func newTable(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

// newRuleset describes the table. The choices behind it:
//
//   - Nothing here redirects but an element of redir, and elements expire.
//   - pre comes just after a mesh's own DNAT (-100), and gets what the mesh
//     leaves; out comes before it, and gets what the mesh's proxy sends to the
//     app, with what others in the pod send to it.
//   - Only a SYN is redirected. The table starts connection tracking in the
//     pod, to which every connection then open looks new with its next segment.
//   - Only what is for the pod itself is redirected: a pod may be a router, and
//     in the node's own namespace all pods' traffic passes.
//   - Datagrams that are to be redirected are tracked in a zone of their own.
//     Their flows, and with them the translation, are known only there: once
//     the element has expired the next datagram of the same flow is looked up
//     in the zone of everything else, and goes to the app.
//   - The agent's ports are no way around the pod's: guard drops what was not
//     sent there by a redirection.
func newRuleset(name string, gid uint32) *ruleset {
	r := &ruleset{table: newTable(name)}
	r.redir = map[uint8]*nftables.Set{TCP: r.portMap("tcp_redir"), UDP: r.portMap("udp_redir")}
	r.agent = map[uint8]*nftables.Set{TCP: r.portSet("tcp_agent"), UDP: r.portSet("udp_agent")}
	r.steered = r.portSet("udp_steered")

	zonePre := r.chain("zone_pre", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	r.rule(zonePre, protocol(UDP), to(r.steered), forUs(), setZone())

	zoneOut := r.chain("zone_out", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityRaw)
	r.rule(zoneOut, protocol(UDP), from(r.agent[UDP]), setZone())
	r.rule(zoneOut, group(gid), verdict(expr.VerdictReturn))
	r.rule(zoneOut, overLoopback(), protocol(UDP), to(r.steered), setZone())

	pre := r.chain("pre", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+1)
	r.rule(pre, protocol(TCP), opens(), forUs(), redirect(r.redir[TCP]))
	r.rule(pre, protocol(UDP), forUs(), redirect(r.redir[UDP]))

	out := r.chain("out", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest-1)
	r.rule(out, group(gid), verdict(expr.VerdictReturn))
	r.rule(out, overLoopback(), protocol(TCP), opens(), redirect(r.redir[TCP]))
	r.rule(out, overLoopback(), protocol(UDP), redirect(r.redir[UDP]))

	guard := r.chain("guard", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	for _, p := range []uint8{TCP, UDP} {
		r.rule(guard, protocol(p), to(r.agent[p]), untranslated(), verdict(expr.VerdictDrop))
	}
	return r
}

// replace queues an empty table in the place of one that has its name: made
// first, so that there is one to remove.
func (r *ruleset) replace(c *nftables.Conn) {
	c.AddTable(r.table)
	c.DelTable(r.table)
	c.AddTable(r.table)
}

// install queues what is in the table.
func (r *ruleset) install(c *nftables.Conn) error {
	for _, s := range r.sets() {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	for _, chain := range r.chains {
		c.AddChain(chain)
	}
	for _, rule := range r.rules {
		c.AddRule(rule)
	}
	return nil
}

// fill queues the removal of all elements and the addition of those for ports.
// Adding an element that is there would not renew its timeout.
func (r *ruleset) fill(c *nftables.Conn, ports []Port) error {
	want := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range ports {
		from, to := binaryutil.BigEndian.PutUint16(p.From), binaryutil.BigEndian.PutUint16(p.To)
		redir, agent := r.redir[p.Protocol], r.agent[p.Protocol]
		want[redir] = append(want[redir], nftables.SetElement{Key: from, Val: to})
		want[agent] = append(want[agent], nftables.SetElement{Key: to})
		if p.Protocol == UDP {
			want[r.steered] = append(want[r.steered], nftables.SetElement{Key: from})
		}
	}
	for _, s := range r.sets() {
		c.FlushSet(s)
		if len(want[s]) == 0 {
			continue
		}
		if err := c.SetAddElements(s, want[s]); err != nil {
			return err
		}
	}
	return nil
}

func (r *ruleset) sets() []*nftables.Set {
	return []*nftables.Set{r.redir[TCP], r.redir[UDP], r.steered, r.agent[TCP], r.agent[UDP]}
}

// portSet is a set of ports. The timeout is the set's own, so that there is no
// way to add an element that stays.
func (r *ruleset) portSet(name string) *nftables.Set {
	return &nftables.Set{Table: r.table, Name: name, KeyType: nftables.TypeInetService, KeyByteOrder: binaryutil.BigEndian,
		HasTimeout: true, Timeout: Timeout}
}

func (r *ruleset) portMap(name string) *nftables.Set {
	s := r.portSet(name)
	s.IsMap, s.DataType = true, nftables.TypeInetService
	return s
}

func (r *ruleset) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	c := &nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority, Policy: &policy}
	r.chains = append(r.chains, c)
	return c
}

func (r *ruleset) rule(c *nftables.Chain, parts ...[]expr.Any) {
	r.rules = append(r.rules, &nftables.Rule{Table: r.table, Chain: c, Exprs: slices.Concat(parts...)})
}

// What follows are the parts of rules: matches, then what is done. All pass
// their value through register 1.

const reg = unix.NFT_REG_1

// equals lets a rule go on when the register holds want.
func equals(want []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: want} }

// masked keeps the bits of mask in the register.
func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// transport loads size bytes of the TCP or UDP header.
func transport(offset, size uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size}
}

func protocol(p uint8) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equals([]byte{p})}
}

func from(s *nftables.Set) []expr.Any {
	return []expr.Any{transport(0, 2), &expr.Lookup{SourceRegister: reg, SetName: s.Name}}
}

func to(s *nftables.Set) []expr.Any {
	return []expr.Any{transport(2, 2), &expr.Lookup{SourceRegister: reg, SetName: s.Name}}
}

// opens matches the segment that opens a TCP connection: of SYN, ACK, RST and
// FIN it has SYN alone.
func opens() []expr.Any {
	const fin, syn, rst, ack = 1, 2, 4, 16
	return []expr.Any{transport(13, 1), masked([]byte{fin | syn | rst | ack}), equals([]byte{syn})}
}

// forUs matches what is sent to an address of this namespace.
func forUs() []expr.Any {
	return []expr.Any{&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}, equals(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL))}
}

func overLoopback() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIF, Register: reg}, equals(binaryutil.NativeEndian.PutUint32(loopback))}
}

// group matches what processes of the group send.
func group(gid uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeySKGID, Register: reg}, equals(binaryutil.NativeEndian.PutUint32(gid))}
}

// untranslated matches what no redirection brought here.
func untranslated() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(binaryutil.NativeEndian.PutUint32(ctDNAT)), equals(make([]byte, 4))}
}

func setZone() []expr.Any {
	return []expr.Any{&expr.Immediate{Register: reg, Data: binaryutil.NativeEndian.PutUint16(zone)},
		&expr.Ct{Key: expr.CtKeyZONE, Register: reg, SourceRegister: true}}
}

// redirect sends what has a port in m to the port that m says, and lets go on
// what has none. It translates the port alone: nft's own redirect would change
// the address as well, to one from which an answer by UDP does not come.
func redirect(m *nftables.Set) []expr.Any {
	return []expr.Any{transport(2, 2), &expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.Name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_INET, RegProtoMin: reg, Specified: true}}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
