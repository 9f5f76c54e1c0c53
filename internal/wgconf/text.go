package wgconf

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Text is the file that Parse reads c from, private key and all: for the one who
// is to have it, and for nobody's log.
func (c Config) Text() string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" && value != "0" {
			fmt.Fprintf(&b, "%s = %s\n", name, value)
		}
	}
	b.WriteString("[Interface]\n")
	line("PrivateKey", c.PrivateKey.Base64())
	line("ListenPort", fmt.Sprint(c.ListenPort))
	line("Address", list(c.Addresses))
	line("DNS", strings.Join(c.DNS, ", "))
	line("MTU", fmt.Sprint(c.MTU))
	for _, p := range c.Peers {
		b.WriteString("\n[Peer]\n")
		line("PublicKey", p.PublicKey.String())
		if p.PresharedKey != nil {
			line("PresharedKey", base64.StdEncoding.EncodeToString(p.PresharedKey[:]))
		}
		line("Endpoint", p.Endpoint)
		line("AllowedIPs", list(p.AllowedIPs))
		line("PersistentKeepalive", fmt.Sprint(int(p.Keepalive/time.Second)))
	}
	return b.String()
}

func list(all []netip.Prefix) string {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}
