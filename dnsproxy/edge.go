package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const headerSize = 12

// verdict is what the first look at a message says: accept, drop, or the
// rcode to answer with.
type verdict int

const (
	accept verdict = -1
	drop   verdict = -2
)

// inspect looks at the header only, before anything is unpacked: most of what
// attackers send ends here.
func inspect(wire []byte) verdict {
	if len(wire) < headerSize {
		return drop
	}
	if wire[2]&0x80 != 0 {
		return drop // an answer; answering it could make two servers talk for ever
	}
	if opcode := int(wire[2]>>3) & 0xf; opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(wire[at:])) }
	if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 2 {
		return dns.RcodeFormatError
	}
	return accept
}

// bare is an answer of a header only, for questions we do not unpack.
func bare(wire []byte, rcode int) []byte {
	if len(wire) < headerSize {
		return nil
	}
	out := make([]byte, headerSize)
	copy(out, wire[:2])
	out[2] = 0x80 | wire[2]&0x79 // QR, the question's opcode and RD
	out[3] = byte(rcode & 0xf)
	return out
}

// refusal answers questions that no handler shall see, nil for all others.
func refusal(q *dns.Msg) *dns.Msg {
	if len(q.Question) != 1 {
		return Refuse(dns.RcodeFormatError)
	}
	opts := 0
	for _, rr := range q.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			opts++
		}
	}
	switch opt := q.IsEdns0(); {
	case opts > 1:
		return Refuse(dns.RcodeFormatError) // RFC 6891 section 6.1.1
	case opt != nil && opt.Version() != 0:
		return Refuse(dns.RcodeBadVers)
	case q.Question[0].Qclass != dns.ClassINET:
		return Refuse(dns.RcodeRefused)
	}
	switch q.Question[0].Qtype {
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB:
		return Refuse(dns.RcodeRefused)
	case dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY, dns.TypeNone:
		return Refuse(dns.RcodeFormatError)
	}
	return nil
}

// finish makes the wire form of resp as the answer to q: ID and question as
// asked, EDNS only where it was asked for, and no more bytes than the client
// takes, with TC set when that cost answers.
func finish(q, resp *dns.Msg, stream bool, buf []byte) (out []byte, rcode int) {
	if resp == nil {
		resp = Refuse(dns.RcodeServerFailure)
	}
	m := *resp
	m.Id = q.Id
	m.Response = true
	m.Opcode = q.Opcode
	m.RecursionDesired = q.RecursionDesired
	m.CheckingDisabled = q.CheckingDisabled
	m.RecursionAvailable = true
	m.Question = q.Question
	m.Compress = true
	if len(q.Question) == 1 {
		name := q.Question[0].Name
		m.Answer = withOwner(m.Answer, name, name)
	}
	var opt *dns.OPT
	if asked := q.IsEdns0(); asked != nil {
		opt = &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(UDPSize)
		opt.SetDo(asked.Do())
		if why := explanation(m.Extra); why != nil {
			opt.Option = []dns.EDNS0{why}
		}
	} else if m.Rcode > 0xf {
		m.Rcode = dns.RcodeServerFailure // an extended code has no place without OPT
	}
	extra := withoutOPT(m.Extra)
	m.Extra = appendOPT(extra, opt)

	limit := dns.MaxMsgSize
	if !stream {
		limit = udpLimit(q)
	}
	out, err := m.PackBuffer(buf)
	if err == nil && len(out) > limit {
		m.Extra = appendOPT(nil, opt) // glue is a courtesy: leave it before asking for TCP
		if out, err = m.PackBuffer(buf); err == nil && len(out) > limit {
			m.Truncate(limit)
			m.Compress = true
			out, err = m.PackBuffer(buf)
		}
	}
	if err != nil || len(out) > limit {
		m = dns.Msg{MsgHdr: m.MsgHdr, Question: q.Question}
		m.Rcode = dns.RcodeServerFailure
		m.Extra = appendOPT(nil, opt)
		if out, err = m.PackBuffer(buf); err != nil {
			return nil, m.Rcode
		}
	}
	return out, m.Rcode
}

// udpLimit is what the client takes over UDP, in bytes: 512 without EDNS,
// else what it says but never above UDPSize.
func udpLimit(q *dns.Msg) int {
	opt := q.IsEdns0()
	if opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(opt.UDPSize()), dns.MinMsgSize), UDPSize)
}

func withoutOPT(rrs []dns.RR) []dns.RR {
	for i, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT {
			out := append([]dns.RR(nil), rrs[:i]...)
			return append(out, withoutOPT(rrs[i+1:])...)
		}
	}
	return rrs
}

// appendOPT adds opt without writing into an array that others may share.
func appendOPT(rrs []dns.RR, opt *dns.OPT) []dns.RR {
	if opt == nil {
		return rrs
	}
	return append(rrs[:len(rrs):len(rrs)], opt)
}
