//go:build unix

package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// messageTime is how long a message may take once its first byte is there, and
// how long the other end may take to make room for one.
const messageTime = 5 * time.Second

// Conn carries messages. One goroutine reads; any may write.
type Conn struct {
	*net.UnixConn

	writing sync.Mutex
	// What the client has read and not used yet.
	buffer []byte
	files  []*os.File
}

// NewConn takes c over.
func NewConn(c *net.UnixConn) *Conn { return &Conn{UnixConn: c} }

// ReadRequest reads what a client asks, whenever that comes. Files that come with
// it are closed by the kernel: it is read without room for them.
func (c *Conn) ReadRequest() (Request, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(c.UnixConn, header[:1]); err != nil {
		return Request{}, err
	}
	if err := c.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
		return Request{}, err
	}
	if _, err := io.ReadFull(c.UnixConn, header[1:]); err != nil {
		return Request{}, err
	}
	n, err := length(header)
	if err != nil {
		return Request{}, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.UnixConn, body); err != nil {
		return Request{}, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return Request{}, err
	}
	return ParseRequest(body)
}

// WriteRequest sends a request.
func (c *Conn) WriteRequest(r Request) error { return c.write(r, nil) }

// WriteAnswer sends an answer with copies of files, which stay the caller's.
func (c *Conn) WriteAnswer(a Answer, files ...syscall.Conn) (err error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var fd int
		var dupErr error
		if err := raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
			return err
		}
		if dupErr != nil {
			return fmt.Errorf("copy a file: %w", dupErr)
		}
		fds = append(fds, fd)
	}
	a.Files = len(files)
	return c.write(a, fds)
}

func (c *Conn) write(v any, fds []int) error {
	b, err := frame(v)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.SetWriteDeadline(time.Now().Add(messageTime)); err != nil {
		return err
	}
	if len(fds) > 0 { // they travel with the first bytes
		n, _, err := c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	_, err = c.UnixConn.Write(b)
	return err
}

// ReadAnswer reads what the helper says, whenever that comes. The files are the
// caller's.
func (c *Conn) ReadAnswer() (Answer, []*os.File, error) {
	if err := c.fill(headerSize); err != nil {
		return Answer{}, nil, err
	}
	n, err := length(c.buffer[:headerSize])
	if err != nil {
		return Answer{}, nil, err
	}
	if err := c.fill(headerSize + n); err != nil {
		return Answer{}, nil, err
	}
	a, err := ParseAnswer(c.buffer[headerSize : headerSize+n])
	if err != nil {
		return Answer{}, nil, err
	}
	if a.Files > len(c.files) {
		return Answer{}, nil, fmt.Errorf("%d files were to come, and %d have", a.Files, len(c.files))
	}
	files := c.files[:a.Files:a.Files]
	c.buffer, c.files = c.buffer[headerSize+n:], c.files[a.Files:]
	return a, files, nil
}

// fill reads until there are n bytes.
func (c *Conn) fill(n int) error {
	part, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*MaxFiles))
	for len(c.buffer) < n {
		got, control, _, _, err := c.ReadMsgUnix(part, oob)
		if err == nil && got == 0 {
			err = io.EOF
		}
		if err != nil {
			return err
		}
		c.buffer = append(c.buffer, part[:got]...)
		if err := c.take(oob[:control]); err != nil {
			return err
		}
	}
	return nil
}

// take keeps the files that came along.
func (c *Conn) take(control []byte) error {
	if len(control) == 0 {
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("read files: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fmt.Errorf("read files: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			c.files = append(c.files, os.NewFile(uintptr(fd), "from podnet-helper"))
		}
	}
	return nil
}

// Discard closes the files that were read and never asked for, for the end.
func (c *Conn) Discard() error {
	var err error
	for _, f := range c.files {
		err = errors.Join(err, f.Close())
	}
	c.files = nil
	return err
}
