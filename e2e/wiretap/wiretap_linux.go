// Package wiretap keeps every packet that passes through a network, for tests that
// promise what is on a wire and what is not.
package wiretap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Tap is a wire that is listened to. It hears all interfaces of its network, the
// loopback included, both directions of each.
type Tap struct {
	socket *os.File
	over   chan struct{}

	mu      sync.Mutex
	packets [][]byte
	err     error
}

// buffer is room for what comes faster than it is read, in bytes.
const buffer = 64 << 20

// Open listens to the network that the calling thread is in. It takes CAP_NET_RAW
// there, and CAP_NET_ADMIN for the buffer.
func Open() (*Tap, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return nil, fmt.Errorf("listen to a network: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		return nil, errors.Join(fmt.Errorf("room for packets: %w", err), unix.Close(fd))
	}
	t := &Tap{socket: os.NewFile(uintptr(fd), "wiretap"), over: make(chan struct{})}
	go t.listen()
	return t, nil
}

// htons is v in the network's order.
func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (t *Tap) listen() {
	defer close(t.over)
	b := make([]byte, 64<<10)
	for {
		n, err := t.socket.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		t.mu.Lock()
		if err != nil {
			t.err = err
			t.mu.Unlock()
			return
		}
		t.packets = append(t.packets, bytes.Clone(b[:n]))
		t.mu.Unlock()
	}
}

// Packets are those that have passed so far, from the network header on.
func (t *Tap) Packets() [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.packets[:len(t.packets):len(t.packets)]
}

// Close ends listening. Its error says so if a packet was missed: then nothing can
// be said of what did not pass.
func (t *Tap) Close() error {
	raw, err := t.socket.SyscallConn()
	if err != nil {
		return err
	}
	var missed uint32
	var counts error
	err = raw.Control(func(fd uintptr) {
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if counts = err; err == nil {
			missed = stats.Drops
		}
	})
	err = errors.Join(err, counts, t.socket.Close())
	<-t.over
	t.mu.Lock()
	defer t.mu.Unlock()
	if missed > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets were missed", missed))
	}
	return errors.Join(err, t.err)
}

// Holding counts the packets that have one of the pieces in them.
func Holding(packets [][]byte, pieces ...[]byte) (n int) {
	for _, p := range packets {
		for _, piece := range pieces {
			if bytes.Contains(p, piece) {
				n++
				break
			}
		}
	}
	return n
}

// Shards cuts a secret into pieces of size bytes that begin every step bytes. Whoever
// finds none of them in any packet has not been sent more than size+step-2 bytes of
// the secret in a row by one packet.
func Shards(secret string, size, step int) (pieces [][]byte) {
	for at := 0; at+size <= len(secret); at += step {
		pieces = append(pieces, []byte(secret[at:at+size]))
	}
	return pieces
}
