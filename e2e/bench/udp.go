package main

import (
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	udpSize  = 1200 // bytes of payload
	udpSpan  = 400 * time.Millisecond
	udpBatch = 32
	udpSteps = 7 // of the bisection
	udpMax   = 600_000
)

// A UDP request is 17 bytes: what to do, packets per second, nanoseconds.
// 'u' starts to count what is sent up until 'r' asks for the count; 'd' has
// the server send down.
type udpRequest struct {
	what byte
	rate uint64
	span time.Duration
}

func (q udpRequest) bytes() []byte {
	b := make([]byte, 17)
	b[0] = q.what
	binary.BigEndian.PutUint64(b[1:], q.rate)
	binary.BigEndian.PutUint64(b[9:], uint64(q.span))
	return b
}

func serveUDP(host string) error {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(host), Port: 7001})
	if err != nil {
		return err
	}
	c.SetReadBuffer(4 << 20)
	go func() {
		p := ipv4.NewPacketConn(c)
		ms := messages(2048)
		var count uint64
		for {
			n, err := p.ReadBatch(ms, 0)
			if err != nil {
				return
			}
			for _, m := range ms[:n] {
				if m.N != 17 {
					count++
					continue
				}
				b := m.Buffers[0]
				switch b[0] {
				case 'u':
					count = 0
					c.WriteTo(b[:17], m.Addr)
				case 'r':
					binary.BigEndian.PutUint64(b[1:], count)
					c.WriteTo(b[:17], m.Addr)
				case 'd':
					go func(to net.Addr, rate, span uint64) {
						flood(p, to, float64(rate), time.Duration(span))
					}(m.Addr, binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]))
				}
			}
		}
	}()
	return nil
}

func messages(size int) []ipv4.Message {
	ms := make([]ipv4.Message, udpBatch)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, size)}
	}
	return ms
}

// flood sends at a rate for a time and returns how many it sent.
func flood(p *ipv4.PacketConn, to net.Addr, rate float64, span time.Duration) (sent int) {
	ms := messages(udpSize)
	for i := range ms {
		ms[i].Addr = to
	}
	for start := time.Now(); ; {
		since := time.Since(start)
		if since > span {
			return sent
		}
		due := int(rate*since.Seconds()) - sent
		if due <= 0 {
			time.Sleep(50 * time.Microsecond)
			continue
		}
		n, err := p.WriteBatch(ms[:min(due, udpBatch)], 0)
		if err != nil {
			return sent
		}
		sent += n
	}
}

// udpRate bisects the highest rate at which less than 1 % is lost.
func udpRate(addr, direction string) (float64, error) {
	c, err := net.Dial("udp4", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.(*net.UDPConn).SetReadBuffer(4 << 20)
	try := udpUp
	if direction == "down" {
		try = udpDown
	}
	low, high := 0.0, float64(udpMax)
	for range udpSteps {
		rate := (low + high) / 2
		got, err := try(c.(*net.UDPConn), rate)
		if err != nil {
			return 0, err
		}
		if got >= 0.99 {
			low = rate
		} else {
			high = rate
		}
		time.Sleep(50 * time.Millisecond)
	}
	return low, nil
}

// udpUp returns the part of what it sent that arrived, or of what it should
// have sent when the sender itself could not keep up.
func udpUp(c *net.UDPConn, rate float64) (float64, error) {
	if _, err := ask(c, udpRequest{what: 'u'}); err != nil {
		return 0, err
	}
	sent := flood(ipv4.NewPacketConn(c), nil, rate, udpSpan)
	time.Sleep(50 * time.Millisecond)
	b, err := ask(c, udpRequest{what: 'r'})
	if err != nil {
		return 0, err
	}
	return float64(binary.BigEndian.Uint64(b[1:])) / max(float64(sent), rate*udpSpan.Seconds()), nil
}

func udpDown(c *net.UDPConn, rate float64) (float64, error) {
	if _, err := c.Write(udpRequest{'d', uint64(rate), udpSpan}.bytes()); err != nil {
		return 0, err
	}
	p := ipv4.NewPacketConn(c)
	ms := messages(2048)
	got := 0
	c.SetReadDeadline(time.Now().Add(udpSpan + 100*time.Millisecond))
	for {
		n, err := p.ReadBatch(ms, 0)
		if err != nil {
			break
		}
		got += n
	}
	return float64(got) / (rate * udpSpan.Seconds()), nil
}

// ask sends a request until it is answered: the line is still full.
func ask(c *net.UDPConn, q udpRequest) ([]byte, error) {
	b := make([]byte, 2048)
	var err error
	for range 10 {
		if _, err = c.Write(q.bytes()); err != nil {
			continue
		}
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		var n int
		for n, err = c.Read(b); err == nil; n, err = c.Read(b) {
			if n == 17 && b[0] == q.what {
				return b, nil
			}
		}
	}
	return nil, err
}
