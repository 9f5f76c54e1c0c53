package redirect

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Table is an agent's table in the kernel. Its methods may be called at the
// same time.
type Table struct {
	ruleset *ruleset

	mu     sync.Mutex // one transaction at a time, none after the last
	closed bool
}

// Open makes the table of the agent id, 1 to 16 of a-z and 0-9, that as yet
// redirects nothing. An older table of that agent is replaced in the same
// transaction. gid is the agent's group: what its processes send is left alone.
// Errors are a *PermissionError, an *UnsupportedError, or what netlink said.
func Open(id string, gid uint32) (*Table, error) {
	name, err := tableName(id)
	if err != nil {
		return nil, err
	}
	if err := checkGroup(gid); err != nil {
		return nil, err
	}
	t := &Table{ruleset: newRuleset(name, gid)}
	err = commit("make table "+name, t.ruleset.install)
	if errors.Is(err, unix.ENOENT) { // a kind of chain, set or expression is not there
		return nil, &UnsupportedError{err}
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Set redirects exactly ports for Timeout from now, in one transaction: no
// connection sees a moment without them. Connections that were redirected
// before stay with the agent. An error changes nothing; it matches
// os.ErrNotExist when somebody removed the table.
func (t *Table) Set(ports []Port) error {
	if err := checkPorts(ports); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("redirect ports by table %s: %w", t.ruleset.table.Name, os.ErrClosed)
	}
	return commit("redirect ports by table "+t.ruleset.table.Name, func(c *nftables.Conn) error { return t.ruleset.fill(c, ports) })
}

// Close removes the table. It is not an error when the table is gone already.
//
// The kernel stops to translate addresses when the last NAT rule of the
// namespace goes, in the middle of redirected connections. Who wants them to
// end well calls Set with no ports first, waits for them, and then closes.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	if err := remove(t.ruleset.table); err != nil {
		return err
	}
	t.closed = true
	return nil
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
	err := commit("remove table "+table.Name, func(c *nftables.Conn) error {
		c.DelTable(table)
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// commit sends what batch queues as one transaction, on a netlink socket of its
// own: an answer that one transaction left unread is not taken for the next's.
func commit(what string, batch func(*nftables.Conn) error) error {
	c, err := nftables.New()
	if err == nil {
		err = batch(c)
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, classify(err))
	}
	return nil
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
