package redirect

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Table is an agent's table in the kernel. Its methods may be called at the
// same time.
type Table struct {
	ruleset    *ruleset
	translates error // why TCP is; nil: it is handed over

	mu     sync.Mutex // one transaction at a time, none after the last
	closed bool
	socket *socket // that the table was made by; nil: there is no table
	udp    bool    // it has the chains for that
}

// Open makes the table of the agent id, 1 to 16 of a-z and 0-9, that as yet
// redirects nothing. gid is the agent's group: what its processes send by UDP is
// left alone.
//
// TCP is handed over if that works here, which is tried before anybody relies on it.
//
// The kernel removes the table when the process ends. Before Linux 5.12 it stays,
// redirects nothing any more after Timeout, and is replaced by the next of that
// id. Errors are a *PermissionError, an *UnsupportedError, or what netlink said.
func Open(id string, gid uint32) (*Table, error) {
	t, err := open(id, gid, nil)
	if err == nil {
		if err = t.tryOut(); err == nil {
			return t, nil
		}
		err = errors.Join(err, t.Close())
	}
	return open(id, gid, err)
}

// open makes a table that translates TCP if there is a reason why.
func open(id string, gid uint32, translates error) (*Table, error) {
	name, err := tableName(id)
	if err != nil {
		return nil, err
	}
	if err := checkGroup(gid); err != nil {
		return nil, err
	}
	t := &Table{ruleset: newRuleset(name, gid), translates: translates}
	if err := t.makeLocked(); err != nil {
		return nil, err
	}
	return t, nil
}

// Translates says why the destination of TCP connections is translated, which costs
// every packet of the pod more; nil: they are handed over to the agent as they are.
func (t *Table) Translates() error { return t.translates }

// makeLocked makes the table.
func (t *Table) makeLocked() error {
	s, err := openSocket()
	if err != nil {
		return fmt.Errorf("make table %s: %w", t.ruleset.table.Name, classify(err))
	}
	owned, err := s.own(t.ruleset.table)
	if err == nil {
		if !owned {
			t.ruleset.replace(s.Conn)
		}
		if err = t.ruleset.install(s.Conn); err == nil {
			if t.translates == nil {
				t.ruleset.handOver(s.Conn)
			} else {
				t.ruleset.translate(s.Conn, TCP)
			}
			err = s.Flush()
		}
	}
	if err == nil {
		t.socket, t.udp = s, false
		return nil
	}
	err = errors.Join(classify(err), s.CloseLasting())
	if errors.Is(err, unix.ENOENT) { // a kind of chain, set or expression is not there
		err = &UnsupportedError{err}
	}
	return fmt.Errorf("make table %s: %w", t.ruleset.table.Name, err)
}

// Set redirects exactly ports for Timeout from now, in one transaction: no
// connection sees a moment without them. Connections that were redirected
// before stay with the agent. After an error nothing may be redirected; the
// next Set makes a new table.
func (t *Table) Set(ports []Port) error {
	if err := checkPorts(ports); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("redirect ports by table %s: %w", t.ruleset.table.Name, os.ErrClosed)
	}
	if t.socket == nil {
		if err := t.makeLocked(); err != nil {
			return err
		}
	}
	udp := t.udp || slices.ContainsFunc(ports, func(p Port) bool { return p.Protocol == UDP })
	if udp && !t.udp {
		t.ruleset.track(t.socket.Conn)
		t.ruleset.translate(t.socket.Conn, UDP)
	}
	err := t.ruleset.fill(t.socket.Conn, ports)
	if err == nil {
		err = t.socket.Flush()
	}
	if err == nil {
		t.udp = udp
		return nil
	}
	// An answer that was left unread must not be taken for the next one's.
	err = errors.Join(classify(err), t.socket.CloseLasting())
	t.socket = nil
	return fmt.Errorf("redirect ports by table %s: %w", t.ruleset.table.Name, err)
}

// Close removes the table. It is not an error when the table is gone already.
//
// Where addresses are translated the kernel stops that when the last NAT rule of
// the namespace goes, in the middle of redirected connections. Who wants them to
// end well calls Set with no ports first, waits for them, and then closes.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	if t.socket == nil {
		return nil
	}
	return errors.Join(t.socket.CloseLasting(), remove(t.ruleset.table))
}

// Remove removes the table of the agent id, whose process is dead. It is not an
// error when there is none.
func Remove(id string) error {
	name, err := tableName(id)
	if err != nil {
		return err
	}
	return remove(newTable(name))
}

func remove(table *nftables.Table) error {
	c, err := nftables.New()
	if err == nil {
		c.DelTable(table)
		err = c.Flush()
	}
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("remove table %s: %w", table.Name, classify(err))
}

// classify knows the answers of a kernel that refuses, and of one without
// nf_tables or a part of it.
func classify(err error) error {
	for _, refused := range []error{unix.EPERM, unix.EACCES} {
		if errors.Is(err, refused) {
			return &PermissionError{err}
		}
	}
	for _, unknown := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, unknown) {
			return &UnsupportedError{err}
		}
	}
	return err
}
