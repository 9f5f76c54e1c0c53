package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/transport"
	"podnet.dev/internal/tunnel"
	"podnet.dev/internal/wgconf"
)

// runPodnet is a TUN as a podnet laptop has it: the same device behind podnet's
// own Bind and bounded queues. The configuration comes on stdin as a file.
func runPodnet() error {
	conf, err := wgconf.Parse(os.Stdin)
	if err != nil {
		return err
	}
	t, err := tun.CreateTUN("wg0", mtu)
	if err != nil {
		return err
	}
	d, err := tunnel.New(t, transport.NewBind(transport.Options{}), tunnel.Config{PrivateKey: conf.PrivateKey, ListenPort: conf.ListenPort})
	if err != nil {
		return err
	}
	defer d.Close()
	var peers []tunnel.Peer
	for _, p := range conf.Peers {
		peers = append(peers, tunnel.Peer{PublicKey: p.PublicKey, PresharedKey: p.PresharedKey, Endpoint: p.Endpoint, AllowedIPs: p.AllowedIPs, Keepalive: p.Keepalive})
	}
	if err := d.SetPeers(peers); err != nil {
		return err
	}
	wait(d.Done())
	return nil
}

// wait returns when the process is to end or done is closed.
func wait(done <-chan struct{}) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
	case <-done:
	}
}

// runTUN is upstream wireguard-go as its own main runs it: a TUN, the device,
// the standard Bind.
func runTUN() error {
	t, err := tun.CreateTUN("wg0", mtu)
	if err != nil {
		return err
	}
	return runUpstream(t, func() error { return nil })
}

// runUpstream runs wireguard-go's device with its standard Bind on t, and what begin
// starts once it is up, until the process is to end. The configuration comes on stdin
// in its own protocol.
func runUpstream(t tun.Device, begin func() error) error {
	conf, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	defer d.Close()
	if err := d.IpcSet(string(conf)); err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	wait(d.Wait())
	return nil
}
