package dnsproxy

import "github.com/miekg/dns"

// Explain notes in m why it is what it is, as an Extended DNS Error (RFC
// 8914): code is one of dns.ExtendedErrorCode..., text is for people. The edge
// tells clients that speak EDNS.
func Explain(m *dns.Msg, code uint16, text string) *dns.Msg {
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: code, ExtraText: text}}
	m.Extra = appendOPT(m.Extra, opt)
	return m
}

// maxExplanation is how long the text of an explanation may be, in bytes: it
// must not crowd out what it explains.
const maxExplanation = 160

// explanation is the Extended DNS Error in rrs, which may hold a hop's OPT
// record or one by Explain. The first one counts.
func explanation(rrs []dns.RR) *dns.EDNS0_EDE {
	for _, rr := range rrs {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			continue
		}
		for _, o := range opt.Option {
			if why, ok := o.(*dns.EDNS0_EDE); ok && len(why.ExtraText) <= maxExplanation {
				return why
			}
		}
	}
	return nil
}

// withoutHop is rrs without what was meant for the hop alone: of its OPT
// record the explanations stay.
func withoutHop(rrs []dns.RR) []dns.RR {
	why := explanation(rrs)
	rrs = withoutOPT(rrs)
	if why == nil {
		return rrs
	}
	return appendOPT(rrs, &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}, Option: []dns.EDNS0{why}})
}
