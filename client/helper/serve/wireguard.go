//go:build unix

package serve

import (
	"time"

	"podnet.dev/client/helper"
	"podnet.dev/client/helper/wire"
	"podnet.dev/internal/key"
)

// kernel is the session as one that may have a device of the kernel's.
func (c *conn) kernel() (helper.Kernel, error) {
	if k, ok := c.session.(helper.Kernel); ok {
		return k, nil
	}
	return nil, &wire.RefusedError{Why: "a WireGuard device of the kernel's, which this host cannot have"}
}

// wireGuard gives the wire only: both of its ends are the helper's own choice.
func (c *conn) wireGuard(mtu int) (name string, files []given, err error) {
	k, err := c.kernel()
	switch {
	case err != nil:
		return "", nil, err
	case c.name != "":
		return "", nil, errSecond
	}
	name, w, err := k.WireGuard(mtu)
	if err != nil {
		return "", nil, err
	}
	c.made(name)
	return name, []given{{w, w.Close}}, nil
}

func (c *conn) setWireGuard(d wire.Device) error {
	k, err := c.kernel()
	if err != nil {
		return err
	}
	own, err := key.ParsePrivate(d.PrivateKey)
	if err != nil {
		return err
	}
	return k.SetWireGuard(helper.WireGuard{PrivateKey: own, Peer: d.Peer, AllowedIPs: d.AllowedIPs, Keepalive: time.Duration(d.Keepalive) * time.Second, Speak: d.Speak})
}

func (c *conn) wireGuardState() (*wire.DeviceState, error) {
	k, err := c.kernel()
	if err != nil {
		return nil, err
	}
	st, err := k.WireGuardState()
	return &wire.DeviceState{LastHandshake: st.LastHandshake, RxBytes: st.RxBytes, TxBytes: st.TxBytes}, err
}
