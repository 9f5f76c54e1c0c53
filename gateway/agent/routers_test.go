package agent

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestRouters(t *testing.T) {
	router := fmt.Sprintf("%08X", binary.NativeEndian.Uint32([]byte{10, 244, 1, 1}))
	four := strings.ReplaceAll(`Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT                                                       
eth0	00000000	ROUTER	0003	0	0	0	00000000	0	0	0                                                                               
eth0	0000F40A	ROUTER	0003	0	0	0	0000FFFF	0	0	0                                                                               
eth0	0001F40A	00000000	0001	0	0	0	00FFFFFF	0	0	0                                                                               
eth1	00000000	00000000	0001	0	0	9	00000000	0	0	0                                                                               
`, "ROUTER", router)
	const six = `fd0000100244000100000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000010024400010000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`
	if got := fmt.Sprint(routers4(strings.NewReader(four))); got != "[10.244.1.1]" {
		t.Error(got)
	}
	if got := fmt.Sprint(routers6(strings.NewReader(six))); got != "[fd00:10:244:1::1]" {
		t.Error(got)
	}
}

// FuzzRouters reads files of proc(5) that are not as they should be.
func FuzzRouters(f *testing.F) {
	f.Add("Iface\tDestination\tGateway\neth0\t00000000\t0101F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
	f.Add("00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000010024400010000000000000001 00000400 00000001 00000000 00000003     eth0\n")
	f.Add("eth0 00000000 -1 FFFFFFFF 0 0 0 00000000\n")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		for _, all := range [][]netip.Addr{routers4(strings.NewReader(text)), routers6(strings.NewReader(text))} {
			if len(all) > lines {
				t.Errorf("%d routers in %d lines", len(all), lines)
			}
			for _, a := range all {
				if !a.IsValid() {
					t.Error("no address is a router")
				}
			}
		}
	})
}
