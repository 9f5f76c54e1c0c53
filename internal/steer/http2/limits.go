package http2

import "time"

// What one client connection, and each connection that is opened for it, may
// cost. Where a number is not the contract's it says what it comes from.
const (
	// maxFrame is the largest payload read and written: what every end has to
	// take (RFC 9113, section 4.2). More gains nothing on a loopback.
	maxFrame = 16 << 10
	// maxBlock and maxContinuations bound a header block before it is decoded
	// (CVE-2023-45288). What it becomes is bounded by steer.MaxHead.
	maxBlock         = 64 << 10
	maxContinuations = 16
	// headerTable bounds the state of each HPACK coder: the value of one that
	// said nothing.
	headerTable = 4096

	// maxStreams is what a client may have open if the app names no number.
	maxStreams = 1000
	// maxRuleStreams is what a rule's laptop, or its copy, may have open.
	maxRuleStreams = 256

	// windowStart is what may come on a stream at first, and what every end
	// assumes. A stream whose receiver keeps up gets windowCeil after having
	// carried half a MiB: 40 Mbit/s for 100 ms of round trip.
	windowStart = 65535
	windowCeil  = 512 << 10
	// windowConn is what may come on all streams of a connection, and so what
	// is kept in memory for it: as much as 32 streams that nobody reads hold
	// at first.
	windowConn = 2 << 20
	// windowMax is the largest window there is (RFC 9113, section 6.9.1).
	windowMax = 1<<31 - 1

	// maxInterim is how many interim responses (1xx) one request may have: no
	// window bounds them.
	maxInterim = 100

	// maxMirror is how much of copies may wait for a laptop.
	maxMirror = 4 << 20

	// floodTime is what the counts below are about.
	floodTime = 10 * time.Second
	// maxResets is how many streams a client may take back, or spoil, before
	// they have an answer (CVE-2023-44487, CVE-2025-8671).
	maxResets = 200
	// maxSettings is how often an end may change its mind.
	maxSettings = 100
	// maxNoise is how many frames may come that carry nothing: PING, PRIORITY,
	// RST_STREAM, WINDOW_UPDATE, empty DATA and unknown ones. For each frame
	// with content, in either direction, noisePerFrame more may: Go's client
	// answers a DATA frame of 16 KiB by eight WINDOW_UPDATE, one for each 4 KiB
	// on the stream and on the connection, and gRPC measures its path by a PING
	// on top.
	maxNoise      = 1000
	noisePerFrame = 16
	// maxPings is how many of an end's PINGs may wait for it to read an answer.
	maxPings = 1000
	// maxDebug is how many bytes of a GOAWAY's text are passed on.
	maxDebug = 1 << 10

	// laptopTime is how long a laptop may take to be connected and to say its
	// SETTINGS.
	laptopTime = 3 * time.Second
	// lingerTime is how long the last bytes of a connection may take to be
	// written, and then to be read by the other end.
	lingerTime = time.Second
)

// tally counts events in spans of floodTime. The zero tally is ready.
type tally struct {
	since time.Time
	n     int
}

// add counts one event at now and returns how many there were in the span.
func (t *tally) add(now time.Time) int {
	if now.Sub(t.since) > floodTime {
		*t = tally{since: now}
	}
	t.n++
	return t.n
}

// noise counts frames that carry nothing against those that do.
type noise struct {
	tally
	content int // frames with content in the span
}

// add counts an empty frame and reports whether there are too many.
func (n *noise) add(now time.Time) bool {
	if n.tally.add(now) == 1 {
		n.content = 0
	}
	return n.n > maxNoise+noisePerFrame*n.content
}
