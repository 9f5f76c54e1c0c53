package dnsproxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// plain reads the questions and writes the answers that nearly all are, and has the
// memory for one of each: A or AAAA of a name of letters, digits, hyphens and
// underscores, without EDNS or without its options, and the addresses of that name.
// All others are miekg/dns' business, which allocates a dozen times for each: a fifth
// of an answer's time, and what is thrown away has to be collected while others wait.
type plain struct {
	wire []byte // the question section and what is before it

	req      Request
	msg      dns.Msg
	question [1]dns.Question
	extra    [1]dns.RR
	opt      dns.OPT
}

const (
	questionTail = 4  // type and class
	optSize      = 11 // an OPT record without options
	doFlag       = 0x80
)

// read is the question in wire, valid until the next one is read, or nil if it is
// none of these.
func (p *plain) read(wire []byte, client netip.Addr) *Request {
	const flags2, flags3 = 0x01, 0x20 | 0x10 // RD; AD and CD
	if len(wire) < headerSize || wire[2]&^flags2 != 0 || wire[3]&^flags3 != 0 {
		return nil
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(wire[at:])) }
	additional := count(10)
	if count(4) != 1 || count(6) != 0 || count(8) != 0 || additional > 1 {
		return nil
	}
	name, rest, ok := plainName(wire[headerSize:])
	if !ok || len(rest) != questionTail+additional*optSize {
		return nil
	}
	qtype, class := binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	if qtype != dns.TypeA && qtype != dns.TypeAAAA || class != dns.ClassINET {
		return nil
	}
	p.msg.Extra = nil
	if opt := rest[questionTail:]; additional == 1 {
		size, do := binary.BigEndian.Uint16(opt[3:]), opt[7]
		if opt[0] != 0 || binary.BigEndian.Uint16(opt[1:]) != dns.TypeOPT || opt[5] != 0 || opt[6] != 0 ||
			do&^doFlag != 0 || opt[8] != 0 || opt[9] != 0 || opt[10] != 0 {
			return nil
		}
		p.opt.Hdr = dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: size}
		p.opt.SetDo(do != 0)
		p.extra[0] = &p.opt
		p.msg.Extra = p.extra[:]
	}
	p.wire = wire[:len(wire)-additional*optSize]
	p.question[0] = dns.Question{Name: name, Qtype: qtype, Qclass: class}
	p.msg.MsgHdr = dns.MsgHdr{
		Id: binary.BigEndian.Uint16(wire), RecursionDesired: wire[2]&flags2 != 0,
		AuthenticatedData: wire[3]&0x20 != 0, CheckingDisabled: wire[3]&0x10 != 0,
	}
	p.msg.Question = p.question[:]
	p.req = Request{Msg: &p.msg, Client: client}
	return &p.req
}

// plainName reads a name that has the same bytes on the wire and as text, but for
// the dots.
func plainName(wire []byte) (name string, rest []byte, ok bool) {
	var text [256]byte
	n := 0
	for {
		if len(wire) == 0 {
			return "", nil, false
		}
		size := int(wire[0])
		wire = wire[1:]
		if size == 0 {
			return string(text[:n]), wire, n > 0
		}
		// A name has 255 bytes on the wire at most (RFC 1035 section 3.1), the
		// last of them 0; a size above 63 is a pointer or nothing.
		if size > 63 || size > len(wire) || n+size+1 > 254 {
			return "", nil, false
		}
		for _, c := range wire[:size] {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return "", nil, false
			}
		}
		n += copy(text[n:], wire[:size])
		text[n] = '.'
		n++
		wire = wire[size:]
	}
}

// write is the answer m to the question that was read last, in buf, or nil if it is
// more than addresses or more than fits.
func (p *plain) write(m *dns.Msg, buf []byte) []byte {
	if len(m.Ns) > 0 || len(m.Extra) > 0 || m.Rcode != dns.RcodeSuccess {
		return nil
	}
	out := append(buf[:0], p.wire...)
	out[2], out[3] = 0x80|out[2]&1, 0x80|out[3]&0x10 // QR and RD, RA and CD
	if m.Authoritative {
		out[2] |= 0x04
	}
	binary.BigEndian.PutUint16(out[6:], uint16(len(m.Answer)))
	for _, rr := range m.Answer {
		var data []byte
		switch rr := rr.(type) {
		case *dns.A:
			data = rr.A.To4()
		case *dns.AAAA:
			if len(rr.AAAA) == net.IPv6len {
				data = rr.AAAA
			}
		}
		h := rr.Header()
		if data == nil || h.Class != dns.ClassINET || !strings.EqualFold(h.Name, p.question[0].Name) {
			return nil
		}
		out = append(out, 0xc0, headerSize) // a pointer to the question's name
		out = binary.BigEndian.AppendUint16(out, h.Rrtype)
		out = binary.BigEndian.AppendUint16(out, h.Class)
		out = binary.BigEndian.AppendUint32(out, h.Ttl)
		out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
		out = append(out, data...)
	}
	if p.msg.Extra != nil {
		do := byte(0)
		if p.opt.Do() {
			do = doFlag
		}
		out = append(out, 0, 0, byte(dns.TypeOPT), UDPSize>>8, UDPSize&0xff, 0, 0, do, 0, 0, 0)
	}
	if len(out) > udpLimit(&p.msg) {
		return nil
	}
	return out
}
