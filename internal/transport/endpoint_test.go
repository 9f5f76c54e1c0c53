package transport

import "testing"

func TestEndpointKind(t *testing.T) {
	b := NewBind(Options{})
	g := b.NewGateway(GatewayConfig{})
	defer g.Close()
	for s, want := range map[string]Kind{
		"192.0.2.1:51820":                       UDP,
		"[2001:db8::1]:5":                       UDP,
		synthetic(streamPrefix, 1<<40).String(): APIServer,
		g.Endpoint():                            "",
		"":                                      "",
		"nonsense":                              "",
	} {
		if got := EndpointKind(s); got != want {
			t.Errorf("EndpointKind(%q) = %q, want %q", s, got, want)
		}
	}
}
