package netwatch

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// signals asks the kernel to tell of every change of links, addresses and
// routes. stop ends it and waits.
func signals(log *slog.Logger) (_ <-chan struct{}, stop func()) {
	out := make(chan struct{}, 1)
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		log.Warn("the kernel does not tell of network changes", "err", err)
		return out, func() {}
	}
	var wg sync.WaitGroup
	wg.Go(func() { receive(s, out, log) })
	return out, func() { s.Close(); wg.Wait() }
}

// receive passes news on until the socket is closed.
func receive(s *nl.NetlinkSocket, out chan<- struct{}, log *slog.Logger) {
	for {
		_, _, err := s.Receive()
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // too much news is news as well
			select {
			case out <- struct{}{}:
			default:
			}
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, os.ErrClosed):
			return
		default:
			log.Warn("the kernel tells of no more network changes", "err", err)
			return
		}
	}
}

// defaultRoutes lists those of the main table.
func defaultRoutes() ([]way, error) {
	var ways []way
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.Type != unix.RTN_UNICAST {
				continue
			}
			link, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				continue // gone while we looked, or a route of several hops
			}
			w := way{dev: link.Attrs().Name, metric: r.Priority}
			if via, ok := netip.AddrFromSlice(r.Gw); ok {
				w.via = via.Unmap()
			}
			ways = append(ways, w)
		}
	}
	return ways, nil
}

func clocks() reading { return reading{awake: clock(unix.CLOCK_MONOTONIC), all: Uptime()} }

// Uptime counts from an arbitrary moment and does not stand still while the
// machine sleeps, as the clock of package time does, nor jump when somebody
// sets the time.
func Uptime() time.Duration { return clock(unix.CLOCK_BOOTTIME) }

func clock(id int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(id, &t) // never fails for these two
	return time.Duration(t.Nano())
}
