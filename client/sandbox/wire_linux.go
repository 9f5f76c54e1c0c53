package sandbox

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"podnet.dev/client/router"
)

// request is one line to the agent, or to who keeps a sandbox for others. One of its
// wishes is set. Files says how many descriptors go with it.
type request struct {
	ID    uint64 `json:"id"`
	Files int    `json:"files,omitempty"`

	Begin   *beginning     `json:"begin,omitempty"`
	Network *router.Config `json:"network,omitempty"`
	Resolv  *string        `json:"resolv,omitempty"` // what /etc/resolv.conf is to be
	LookUp  string         `json:"lookUp,omitempty"`
	Socket  *socketKind    `json:"socket,omitempty"`
	Reset   []netip.Addr   `json:"reset,omitempty"` // whose TCP flows are to end
	Run     *Command       `json:"run,omitempty"`
	// Signal goes to the command of the request Of.
	Signal syscall.Signal `json:"signal,omitempty"`
	Of     uint64         `json:"of,omitempty"`
	// End asks who keeps a sandbox to let go of it.
	End bool `json:"end,omitempty"`
}

// beginning is how the room is to be.
type beginning struct {
	Isolate bool `json:"isolate,omitempty"`
	Six     bool `json:"six,omitempty"` // IPv6 leads outside
}

// socketKind is an AF and a SOCK constant.
type socketKind struct {
	Family, Type int
}

// reply answers the request of the same ID.
type reply struct {
	ID       uint64                `json:"id"`
	Files    int                   `json:"files,omitempty"`
	Failure  *failure              `json:"failure,omitempty"`
	Conflict *router.ConflictError `json:"conflict,omitempty"`
	Addrs    []netip.Addr          `json:"addrs,omitempty"`
	Count    int                   `json:"count,omitempty"`
	Exit     *Exit                 `json:"exit,omitempty"`

	fds descriptors
}

// failure is an error on its way.
type failure struct {
	Attempt string        `json:"attempt"`
	Errno   syscall.Errno `json:"errno,omitempty"`
	Text    string        `json:"text"`
}

func (f *failure) Error() string {
	if f.Attempt == "" {
		return f.Text
	}
	return f.Attempt + ": " + f.Text
}

func (f *failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// descriptors came with a line.
type descriptors []int

func (d descriptors) close() {
	for _, fd := range d {
		_ = unix.Close(fd)
	}
}

// wire carries lines of JSON and descriptors over a stream socket. One goroutine
// receives; any may send.
type wire struct {
	conn    *net.UnixConn
	decoder *json.Decoder
	arrived descriptors // that no line has claimed yet

	mu sync.Mutex
}

func newWire(c *net.UnixConn) *wire {
	w := &wire{conn: c}
	w.decoder = json.NewDecoder((*arrivals)(w))
	return w
}

// maxDescriptors is how many go with one line.
const maxDescriptors = 4

// arrivals reads the bytes and sets descriptors aside. They are in the order of the
// lines that they go with, though lines may be read together.
type arrivals wire

func (w *arrivals) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, _, _, err := w.conn.ReadMsgUnix(b, oob)
	if messages, e := unix.ParseSocketControlMessage(oob[:oobn]); e == nil {
		for _, m := range messages {
			if fds, e := unix.ParseUnixRights(&m); e == nil {
				w.arrived = append(w.arrived, fds...)
			}
		}
	}
	return max(n, 0), err
}

// claim takes the descriptors of the line that was received last.
func (w *wire) claim(n int) (descriptors, error) {
	if n < 0 || n > len(w.arrived) {
		return nil, fmt.Errorf("%d descriptors were announced, %d came", n, len(w.arrived))
	}
	fds := w.arrived[:n:n]
	w.arrived = w.arrived[n:]
	return fds, nil
}

// send writes a line; v says itself how many files go with it. They stay open here.
func (w *wire) send(v any, files ...int) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n, _, err := w.conn.WriteMsgUnix(line, rights, nil)
	if err == nil && n < len(line) {
		_, err = w.conn.Write(line[n:])
	}
	return err
}

func (w *wire) close() {
	_ = w.conn.Close()
}

// socketPair is a wire, and its other end for a child.
func socketPair() (*wire, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "parent")
	w, err := wireOf(near)
	if err != nil {
		_ = far.Close()
		return nil, nil, err
	}
	return w, far, nil
}

// wireOf makes a wire of a socket, which it owns.
func wireOf(f *os.File) (*wire, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%s is no unix socket", f.Name())
	}
	return newWire(u), nil
}
