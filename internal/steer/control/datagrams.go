package control

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// ErrDatagram says that a datagram is longer than UDP has any.
var ErrDatagram = errors.New("a datagram is longer than 65535 bytes")

// Datagrams carries the datagrams of a flow over a connection, each behind its
// length in two bytes, the higher one first. One may send while another receives.
//
// A side ends the connection in good order when the target has said that it does
// not take what was sent (ECONNREFUSED); in all other cases it resets it.
type Datagrams struct {
	io.Closer
	r   *bufio.Reader
	w   io.Writer
	out []byte
}

// NewDatagrams carries them over c, of which nothing but lines was read before.
func NewDatagrams(c io.ReadWriteCloser) *Datagrams {
	return &Datagrams{Closer: c, r: bufio.NewReaderSize(c, 2<<10), w: c}
}

// Next waits for a datagram and returns its length. It must be received before
// Next is asked again. After the last one the error is io.EOF.
func (d *Datagrams) Next() (int, error) {
	var size [2]byte
	if _, err := io.ReadFull(d.r, size[:]); err != nil {
		return 0, err
	}
	return int(binary.BigEndian.Uint16(size[:])), nil
}

// Receive fills b, which has the length that Next returned, with the datagram.
func (d *Datagrams) Receive(b []byte) error {
	_, err := io.ReadFull(d.r, b)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Send sends a datagram of at most 65535 bytes. It does not keep b.
func (d *Datagrams) Send(b []byte) error {
	if len(b) > math.MaxUint16 {
		return ErrDatagram
	}
	d.out = append(binary.BigEndian.AppendUint16(d.out[:0], uint16(len(b))), b...)
	_, err := d.w.Write(d.out)
	if cap(d.out) > 16<<10 { // large ones are rare, and there are many flows
		d.out = nil
	}
	return err
}
