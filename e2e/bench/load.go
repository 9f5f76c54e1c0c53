package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const message = 64 // bytes of a request and of its answer

// serve echoes TCP at addr and counts and sends UDP at the next port.
func serve(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, message)
				for {
					if _, err := io.ReadFull(c, b); err != nil {
						return
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if err := serveUDP(host); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
	return nil
}

// rrResult are quantiles of round trips in microseconds.
type rrResult struct {
	P50, P99 float64
	N        int
}

// roundTrips sends one small message at a time over one connection.
func roundTrips(addr string, d time.Duration) (rrResult, error) {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return rrResult{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d + 5*time.Second))
	b := make([]byte, message)
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		if _, err := c.Write(b); err != nil {
			return rrResult{}, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return rrResult{}, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	us := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / 1e3 }
	return rrResult{us(0.5), us(0.99), len(took)}, nil
}

// connects opens, uses once and closes connections, 16 at a time.
func connects(addr string, d time.Duration) (rate float64, failed int, err error) {
	var good, bad atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range 16 {
		wg.Go(func() {
			b := make([]byte, message)
			for time.Now().Before(end) {
				if once(addr, b) == nil {
					good.Add(1)
				} else {
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if good.Load() == 0 {
		return 0, 0, errors.New("no connection succeeded")
	}
	return float64(good.Load()) / d.Seconds(), int(bad.Load()), nil
}

func once(addr string, b []byte) error {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err = io.ReadFull(c, b)
	return err
}

// idle holds n connections for a moment, each used once.
func idle(addr string, n int) error {
	b := make([]byte, message)
	for range n {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond)
	return nil
}
