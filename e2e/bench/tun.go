package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// runTUN is upstream wireguard-go as its own main runs it: a TUN, the device,
// the standard Bind. The configuration comes on stdin in its own protocol.
func runTUN() error {
	conf, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	t, err := tun.CreateTUN("wg0", mtu)
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
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case <-stop:
	case <-d.Wait():
	}
	return nil
}
