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
	// mark is on what the agent's own TCP sockets send. It has no bit by which
	// kube-proxy (0xc000), Calico (0xffff0000) or Cilium (0x0f00) know packets: a pod
	// may live in its node's network.
	mark = 0x306e
	// loopback is the index of lo in every network namespace.
	loopback = 1
	// ctDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h: the
	// connection's destination was translated.
	ctDNAT = 1 << 5
)

// ruleset is a table as it is to be. Its methods queue parts of it: the sets, and
// chains for TCP of the one kind or the other, and for UDP. The choices behind all
// of them:
//
//   - Nothing here redirects but an element of redir, and elements expire.
//   - Of TCP only a SYN is redirected. What is open stays where it is.
//   - Only what is for the pod itself is redirected: a pod may be a router, and
//     in the node's own namespace all pods' traffic passes.
//   - What comes from outside is the agent's just after a mesh's own DNAT (-100):
//     it gets what the mesh leaves.
//   - The agent's ports are no way around the pod's: what was not redirected to
//     them is dropped.
type ruleset struct {
	table *nftables.Table
	gid   uint32 // the agent's group

	redir   map[uint8]*nftables.Set // by protocol: the pod's port to the agent's
	agent   map[uint8]*nftables.Set // by protocol: the agent's ports
	steered *nftables.Set           // the pod's UDP ports

	filled map[*nftables.Set]bool // what may have elements
}

func newTable(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

func newRuleset(name string, gid uint32) *ruleset {
	r := &ruleset{table: newTable(name), gid: gid}
	r.redir = map[uint8]*nftables.Set{TCP: r.portMap("tcp_redir"), UDP: r.portMap("udp_redir")}
	r.agent = map[uint8]*nftables.Set{TCP: r.portSet("tcp_agent"), UDP: r.portSet("udp_agent")}
	r.steered = r.portSet("udp_steered")
	return r
}

// handOver queues how TCP comes to the agent: its socket gets the SYN as it is, and
// the connection has the pod's own port. So nothing is translated or tracked, and
// whatever follows finds the connection's socket by itself.
//
//   - What begins within the pod passes here too, as it comes in by lo; a mesh's
//     proxy hands on to the app that way.
//   - The agent's own connections are known by their mark, as what comes in has no
//     group yet.
//   - What has been handed over to somebody else stays there: a mesh may work like
//     this as well.
func (r *ruleset) handOver(c *nftables.Conn) {
	pre := r.chain(c, "tcp_pre", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+1)
	begins := c.AddChain(&nftables.Chain{Table: r.table, Name: "tcp_begins"})
	r.rule(c, pre, protocol(TCP), opens(), forUs(), goTo(begins))
	r.rule(c, begins, marked(), verdict(expr.VerdictReturn))
	r.rule(c, begins, otherGroup(r.gid), verdict(expr.VerdictReturn))
	r.rule(c, begins, protocol(TCP), to(r.agent[TCP]), verdict(expr.VerdictDrop))
	r.rule(c, begins, protocol(TCP), toAgent(r.redir[TCP]), []expr.Any{&expr.TProxy{Family: unix.NFPROTO_UNSPEC, RegPort: reg}})
}

// translate queues how UDP comes to the agent, and TCP where it cannot be handed
// over: the destination's port is translated. That has the kernel track all that
// the pod sends and gets, and to connection tracking every connection then open
// looks new with its next segment.
//
// out comes before a mesh's DNAT, and gets what the mesh's proxy sends to the app,
// with what others in the pod send to it.
func (r *ruleset) translate(c *nftables.Conn, p uint8) {
	begins := protocol(p)
	if p == TCP {
		begins = slices.Concat(begins, opens())
	}
	pre := r.chain(c, protocolName(p)+"_pre", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+1)
	r.rule(c, pre, begins, forUs(), redirect(r.redir[p]))

	out := r.chain(c, protocolName(p)+"_out", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest-1)
	r.rule(c, out, group(r.gid), verdict(expr.VerdictReturn))
	r.rule(c, out, overLoopback(), begins, redirect(r.redir[p]))

	guard := r.chain(c, protocolName(p)+"_guard", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	r.rule(c, guard, protocol(p), to(r.agent[p]), untranslated(), verdict(expr.VerdictDrop))
}

// track queues that datagrams which are to be redirected are tracked in a zone of
// their own. Their flows, and with them the translation, are known only there: once
// the element has expired the next datagram of the same flow is looked up in the
// zone of everything else, and goes to the app.
func (r *ruleset) track(c *nftables.Conn) {
	pre := r.chain(c, "udp_zone_pre", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	r.rule(c, pre, protocol(UDP), to(r.steered), forUs(), setZone())

	out := r.chain(c, "udp_zone_out", nftables.ChainTypeFilter, nftables.ChainHookOutput, *nftables.ChainPriorityRaw)
	r.rule(c, out, protocol(UDP), from(r.agent[UDP]), setZone())
	r.rule(c, out, group(r.gid), verdict(expr.VerdictReturn))
	r.rule(c, out, overLoopback(), protocol(UDP), to(r.steered), setZone())
}

// replace queues an empty table in the place of one that has its name: made
// first, so that there is one to remove.
func (r *ruleset) replace(c *nftables.Conn) {
	c.AddTable(r.table)
	c.DelTable(r.table)
	c.AddTable(r.table)
}

// install queues the sets.
func (r *ruleset) install(c *nftables.Conn) error {
	r.filled = map[*nftables.Set]bool{}
	for _, s := range r.sets() {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// fill queues the removal of all elements and the addition of those for ports.
// Adding an element that is there would not renew its timeout. A set that was empty
// and is to be is left out: this is done each second, and each part of it costs two
// messages.
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
		if r.filled[s] {
			c.FlushSet(s)
		}
		if r.filled[s] = len(want[s]) > 0; !r.filled[s] {
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

func (r *ruleset) chain(c *nftables.Conn, name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return c.AddChain(&nftables.Chain{Table: r.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority, Policy: &policy})
}

func (r *ruleset) rule(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	c.AddRule(&nftables.Rule{Table: r.table, Chain: chain, Exprs: slices.Concat(parts...)})
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

// otherGroup matches what has a socket already, of a process of another group.
func otherGroup(gid uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeySKGID, Register: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(gid)}}
}

// marked matches what the agent's own sockets send.
func marked() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, equals(binaryutil.NativeEndian.PutUint32(mark))}
}

// untranslated matches what no redirection brought here.
func untranslated() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(binaryutil.NativeEndian.PutUint32(ctDNAT)), equals(make([]byte, 4))}
}

func setZone() []expr.Any {
	return []expr.Any{&expr.Immediate{Register: reg, Data: binaryutil.NativeEndian.PutUint16(zone)},
		&expr.Ct{Key: expr.CtKeyZONE, Register: reg, SourceRegister: true}}
}

// toAgent loads the port of the agent that m has for the packet's, and matches if
// there is one.
func toAgent(m *nftables.Set) []expr.Any {
	return []expr.Any{transport(2, 2), &expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m.Name}}
}

// redirect sends what has a port in m to the port that m says, and lets go on
// what has none. It translates the port alone: nft's own redirect would change
// the address as well, to one from which an answer by UDP does not come.
func redirect(m *nftables.Set) []expr.Any {
	return append(toAgent(m), &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_INET, RegProtoMin: reg, Specified: true})
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func goTo(c *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}
