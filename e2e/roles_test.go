//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// roles are the programs this test binary can be on a lab machine. Each gets
// its arguments, prints its findings and returns an error when it failed.
var roles = map[string]func(ctx context.Context, args []string) error{
	"connections": connections,
	"flows":       flows,
	"refused":     refused,
	"transfer":    transfer,      // see mtu_test.go
	"crowd":       crowdRole,     // see crowd_test.go
	"customers":   customersRole, // see customers_test.go
	"chat":        chat,          // see programs_test.go
	"healthy":     healthy,
	"resolve":     resolveRole, // see resolver_test.go
	"menu":        menuRole,    // see desktop_test.go
	"confined":    confined,    // see exec_test.go

	// These go on until they are told to stop, and print what they see.
	"echo":     echo,
	"fetch":    fetch,
	"lookups":  lookups,
	"bulk":     bulk,
	"download": download,
	"watch":    watch,

	// These serve until they are told to stop.
	"web":       web,
	"websocket": chatServer,
	"health":    healthServer,
	"desktop":   desktopRole,
	"terminal":  terminalRole, // see terminal_test.go
}

func play(role string, args []string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	run, ok := roles[role]
	if !ok {
		fmt.Fprintf(os.Stderr, "no role %q\n", role)
		return 2
	}
	if err := run(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// connections ADDRESS COUNT PARALLEL makes short connections to an echo
// server, one line each, and tells how long they took.
func connections(ctx context.Context, args []string) error {
	addr, count, parallel := args[0], number(args[1]), number(args[2])
	work := make(chan int)
	var mu sync.Mutex
	var took []time.Duration
	var failed []error
	var wg sync.WaitGroup
	start := time.Now()
	for range parallel {
		wg.Go(func() {
			for i := range work {
				start := time.Now()
				err := echoOnce(ctx, addr, fmt.Sprintf("connection %d", i))
				mu.Lock()
				took = append(took, time.Since(start))
				if err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	for i := range count {
		work <- i
	}
	close(work)
	wg.Wait()
	slices.Sort(took)
	fmt.Printf("%d connections, %d failed, %.0f per second, p50 %v, p99 %v\n", count, len(failed),
		float64(count)/time.Since(start).Seconds(), took[count/2].Round(time.Microsecond), took[count*99/100].Round(time.Microsecond))
	if len(failed) > 0 {
		return fmt.Errorf("first failure: %w", failed[0])
	}
	return nil
}

// flows ADDRESS COUNT keeps COUNT connections to an echo server open at once
// and has each of them answer after the last was opened.
func flows(ctx context.Context, args []string) error {
	addr, count := args[0], number(args[1])
	conns := make([]net.Conn, count)
	errs := make(chan error, count)
	limit := make(chan struct{}, 64)
	var d net.Dialer
	for i := range conns {
		limit <- struct{}{}
		go func() {
			defer func() { <-limit }()
			var err error
			conns[i], err = d.DialContext(ctx, "tcp", addr)
			errs <- err
		}()
	}
	for range conns {
		if err := <-errs; err != nil {
			return err
		}
	}
	start := time.Now()
	for i, c := range conns {
		go func() { errs <- echoLine(ctx, c, fmt.Sprintf("flow %d", i)) }()
	}
	for range conns {
		if err := <-errs; err != nil {
			return err
		}
	}
	fmt.Printf("%d flows open at once, all answered within %v\n", count, time.Since(start).Round(time.Millisecond))
	for _, c := range conns {
		_ = c.Close()
	}
	return nil
}

// refused ADDRESS connects to a port nobody listens on and tells how fast it
// learned that.
func refused(ctx context.Context, args []string) error {
	start := time.Now()
	err := echoOnce(ctx, args[0], "anyone?")
	took := time.Since(start)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("want connection refused, got: %w", err)
	}
	fmt.Printf("connection refused after %v\n", took.Round(time.Microsecond))
	return nil
}

func echoOnce(ctx context.Context, addr, line string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return echoLine(ctx, c, line)
}

func echoLine(ctx context.Context, c net.Conn, line string) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if got != line+"\n" {
		return fmt.Errorf("echo of %q is %q", line, got)
	}
	return nil
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}
