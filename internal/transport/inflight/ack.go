package inflight

import (
	"encoding/binary"
	"math"
	"time"
)

// An acknowledgement is a control message: 'p', Kind, how long the last byte was
// held back in units of ackUnit (2 bytes), and how many bytes have arrived in
// all (8 bytes), big-endian.
const (
	// Kind is an acknowledgement's second byte.
	Kind = 'a'
	// Len is its length in bytes.
	Len     = 12
	ackUnit = 100 * time.Microsecond
)

// Append appends an acknowledgement to b. held is told to a tenth of a
// millisecond, and as 6.5 s where it is longer.
func Append(b []byte, bytes uint64, held time.Duration) []byte {
	units := min(max(held/ackUnit, 0), math.MaxUint16)
	b = append(b, 'p', Kind)
	b = binary.BigEndian.AppendUint16(b, uint16(units))
	return binary.BigEndian.AppendUint64(b, bytes)
}

// Parse reads an acknowledgement. Later versions may make it longer.
func Parse(m []byte) (bytes uint64, held time.Duration, ok bool) {
	if len(m) < Len || m[0] != 'p' || m[1] != Kind {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(m[4:]), time.Duration(binary.BigEndian.Uint16(m[2:])) * ackUnit, true
}
