package guest

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	dir := fstest.MapFS{
		"modules.dep": {Data: []byte(`kernel/net/udp_tunnel.ko:
kernel/net/ip6_udp_tunnel.ko:
kernel/lib/libchacha20poly1305.ko: kernel/lib/libchacha.ko
kernel/lib/libchacha.ko:
kernel/drivers/net/wireguard/wireguard.ko: kernel/lib/libchacha20poly1305.ko kernel/net/ip6_udp_tunnel.ko kernel/net/udp_tunnel.ko kernel/lib/libchacha.ko
kernel/drivers/net/virtio-net.ko:
kernel/drivers/net/packed.ko.xz:
`)},
		"modules.builtin": {Data: []byte("kernel/drivers/net/tun.ko\n")},
	}
	got, err := modules(dir, []string{"virtio_net", "tun", "wireguard"})
	want := []string{"kernel/drivers/net/virtio-net.ko", "kernel/lib/libchacha.ko", "kernel/lib/libchacha20poly1305.ko", "kernel/net/ip6_udp_tunnel.ko", "kernel/net/udp_tunnel.ko", "kernel/drivers/net/wireguard/wireguard.ko"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, none := range []string{"dummy", "packed"} {
		if got, err := modules(dir, []string{none}); err == nil {
			t.Errorf("%s: %q", none, got)
		}
	}
}
