package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// message is a datagram that looks like WireGuard's data.
func message(size int, fill byte) []byte {
	m := bytes.Repeat([]byte{fill}, size)
	copy(m, []byte{msgTransport, 0, 0, 0})
	return m
}

func TestReadPreamble(t *testing.T) {
	next := append([]byte{}, preamble[:]...)
	next[7] = 2
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"ours", preamble[:], nil},
		{"other version", next, VersionError{Theirs: 2, Ours: 1}},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), errGarbage},
		{"one wrong byte", []byte("x"), errGarbage},
		{"wrong at the end", []byte("podnex"), errGarbage},
		{"short", preamble[:7], io.ErrUnexpectedEOF},
		{"nothing", nil, io.ErrUnexpectedEOF},
	} {
		for _, r := range []io.Reader{bytes.NewReader(c.in), iotest.OneByteReader(bytes.NewReader(c.in))} {
			if err := readPreamble(r); !errors.Is(err, c.want) {
				t.Errorf("%s: error %v, want %v", c.name, err, c.want)
			}
		}
	}
	// What follows the preamble is left for the frames.
	r := bytes.NewReader(append(preamble[:], "rest"...))
	if err := readPreamble(r); err != nil || r.Len() != 4 {
		t.Errorf("error %v, %d bytes left, want 4", err, r.Len())
	}
}

func TestIsWireGuard(t *testing.T) {
	for _, c := range []struct {
		name string
		m    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"initiation", append([]byte{1, 0, 0, 0}, make([]byte, 144)...), true},
		{"long initiation", append([]byte{1, 0, 0, 0}, make([]byte, 145)...), false},
		{"response", append([]byte{2, 0, 0, 0}, make([]byte, 88)...), true},
		{"cookie", append([]byte{3, 0, 0, 0}, make([]byte, 60)...), true},
		{"keepalive", message(32, 0), true},
		{"short data", message(31, 0), false},
		{"reserved bytes set", append([]byte{4, 0, 1, 0}, make([]byte, 44)...), false},
		{"DNS", append([]byte{0x12, 0x34, 1, 0}, make([]byte, 44)...), false},
		{"control", []byte("ping"), false},
	} {
		if got := isWireGuard(c.m); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// chunks gives a stream in reads of changing size.
type chunks struct {
	b    []byte
	size func() int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(len(c.b), c.size())])
	c.b = c.b[n:]
	return n, nil
}

func TestFrameReaderCutsAnyChunks(t *testing.T) {
	sizes := []int{32, 148, 1452, 16416, 65535}
	for _, chunk := range []int{1, 7, 1400, 40_000, 1 << 20, 3 << 20} {
		rnd := rand.New(rand.NewPCG(1, uint64(chunk)))
		var in, want []byte
		limit := 3000
		if chunk < 100 {
			limit = 20
		}
		for i := range limit {
			m := message(32+rnd.IntN(sizes[rnd.IntN(len(sizes))]-31), byte(i))
			if i%17 == 0 {
				m = []byte("ping")
			}
			in = appendFrame(in, m)
			want = append(want, m...)
		}
		r := frameReader{src: &chunks{b: in, size: func() int { return 1 + rnd.IntN(chunk) }}}
		var got []byte
		for {
			frames, err := r.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("chunks of %d: %v", chunk, err)
			}
			for len(frames) > 0 {
				m, rest, _, ok := nextFrame(frames)
				if !ok {
					t.Fatalf("chunks of %d: half a frame at the end of a run", chunk)
				}
				got = append(got, m...)
				frames = rest
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("chunks of %d: %d bytes came out changed, want %d", chunk, len(got), len(want))
		}
	}
}

func TestFrameReaderGivesTheLargeBufferBack(t *testing.T) {
	var bulk []byte
	for range 100 {
		bulk = appendFrame(bulk, message(16416, 1))
	}
	small := appendFrame(nil, message(100, 2))
	r := frameReader{src: io.MultiReader(bytes.NewReader(bulk), bytes.NewReader(small), bytes.NewReader(small))}
	grew := false
	for {
		_, err := r.next()
		grew = grew || r.large != nil
		if err != nil {
			break
		}
	}
	if !grew || r.large != nil {
		t.Errorf("large buffer used: %v, kept: %v; want it used and given back", grew, r.large != nil)
	}
}

func TestFrameReaderDoesNotAllocatePerFrame(t *testing.T) {
	one := appendFrame(nil, message(1452, 1))
	r := frameReader{src: &endless{b: bytes.Repeat(one, 20)}}
	if _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.next(); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations per read", n)
	}
}

type endless struct{ b []byte }

func (e *endless) Read(p []byte) (int, error) { return copy(p, e.b), nil }

func TestFrameReaderRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"empty frame", []byte{0, 0}, errFrame},
		{"garbage in a frame", appendFrame(nil, []byte("GET / HTTP/1.1\r\n\r\n")), errFrame},
		{"garbage after a good frame", append(appendFrame(nil, message(64, 1)), 0, 4, 1, 2, 3, 4), errFrame},
		{"end within a header", []byte{0}, io.ErrUnexpectedEOF},
		{"end within a frame", appendFrame(nil, message(64, 1))[:40], io.ErrUnexpectedEOF},
	} {
		r := frameReader{src: bytes.NewReader(c.in)}
		var err error
		for err == nil {
			_, err = r.next()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

// FuzzFrameReader compares the reader with a decoder that has the whole stream
// before it.
func FuzzFrameReader(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, message(32, 0)), message(1452, 9)), uint16(3))
	f.Add(appendFrame([]byte{}, []byte("pong and more")), uint16(1))
	f.Add([]byte{0, 0, 0, 4}, uint16(2))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint16) {
		var want [][]byte
		bad := false
		for rest := in; len(rest) >= 2; {
			n := int(binary.BigEndian.Uint16(rest))
			if len(rest) < 2+n {
				break
			}
			m := rest[2 : 2+n]
			if bad = checkFrame(m) != nil; bad {
				break
			}
			want = append(want, m)
			rest = rest[2+n:]
		}
		r := frameReader{src: &chunks{b: in, size: func() int { return int(chunk) + 1 }}}
		var got [][]byte
		for {
			frames, err := r.next()
			if err != nil {
				if errors.Is(err, errFrame) != bad {
					t.Fatalf("error %v, want refused: %v", err, bad)
				}
				break
			}
			for len(frames) > 0 {
				m, rest, _, ok := nextFrame(frames)
				if !ok {
					t.Fatal("half a frame handed out")
				}
				got = append(got, bytes.Clone(m))
				frames = rest
			}
		}
		// Frames in the same read as a bad one may be lost with the stream.
		if len(got) > len(want) || !bad && len(got) != len(want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d differs", i)
			}
		}
	})
}
