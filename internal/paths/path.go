package paths

import (
	"fmt"
	"time"
)

// Times of a path's life. In sum: a cut is found in 0.8 to 1.9 s, so that a TCP
// flow inside loses its second or third retransmission and no more.
const (
	pingActive  = time.Second     // between pings of the path that carries the datagrams
	pingStandby = 2 * time.Second // and of the others; this also keeps NATs awake
	pingQuick   = 150 * time.Millisecond
	pingStream  = 500 * time.Millisecond // of a stream that has not answered yet

	// A silent path becomes suspect after slack, or two round trips, but not
	// later than slackMax: one late pong must not make us blind for long.
	slack    = 300 * time.Millisecond
	slackMax = time.Second
	// A suspect one is dead when this many pings in a row are unanswered: with
	// 2 % loss each way that happens by chance once in a few thousand hours.
	deadPings = 5
	// And when the first of them is older than deadAfter, or four round trips up
	// to deadAfterMax. Where datagrams still arrive, or the kernel repeats what
	// was lost, it is better to wait a little than to lose what is there.
	deadAfter     = 800 * time.Millisecond
	deadAfterLong = 2 * time.Second
	deadAfterMax  = 2500 * time.Millisecond
	// A stream by which no byte came for this long is dialled anew, provided
	// that something has asked for one for a quarter of it.
	mute = 4 * time.Second

	// A path must have been live for proof, and have answered proofPongs pings
	// in a row, before it takes the datagrams of one that works. Who dies young
	// must prove longer the next time, up to proofMax.
	proof      = 600 * time.Millisecond
	proofMax   = 2400 * time.Millisecond
	proofPongs = 3
	// settledPongs in a row, and this long a life, have shown what the round trip is.
	settledPongs = 8
	settled      = 5 * time.Second
	young        = time.Minute

	// Counts are looked at this often while datagrams go out; see Set.Resting.
	glance = 100 * time.Millisecond
	// Pings between which more than this many bytes went either way say more
	// about our own load than about the path.
	loaded = 64 << 10
	// fullEvery is of how many pings of the active path one is full size; while much
	// goes by it, each is. So an outer path that begins to swallow what is long costs
	// a transfer two seconds, and an idle session little.
	fullEvery = 5
	// keepSent bounds the unanswered pings that are remembered.
	keepSent = 64
)

// backoff is the pauses between tries of a UDP path that does not answer, give
// or take a quarter; the last one repeats. While no path is alive, that at
// backoffAlone does. Most cuts last a second or two, and TCP inside doubles its own
// pauses meanwhile: the first tries are quick. A path that works again is to be in
// use within 15 s, also when the first try meets with some mishap.
var backoff = [...]time.Duration{
	250 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 4 * time.Second,
}

const backoffAlone = 4

type phase int

const (
	down phase = iota
	trying
	live
	suspect
)

// path is one path's life:
//
//	       stands           pong           silence
//	down ---------> trying ------> live ------------> suspect
//	 ^                ^              ^                 |   |
//	 |                |              '------ pong -----'   |
//	 |                |                                    |
//	 |                '------- silence for too long, ------'
//	 |                         or datagrams of MinDatagram
//	 |                         do not pass (live ones, too)
//	 '--- from anywhere: the stream has ended
//
// A UDP path always stands. Pings go out in every phase but the first: trying,
// after growing pauses; live, each second or two; suspect, as fast as is decent.
// Live and suspect paths are alive: they may carry datagrams. Which one does is
// for Set.choose to say.
type path struct {
	id    ID
	kind  Kind
	phase phase
	since time.Time // it is alive; zero: it is not
	died  string    // why it is not alive any more, for people

	seq      uint32    // of the last ping
	answered uint32    // of the latest ping that a pong has answered
	due      time.Time // of the next ping
	sent     []ping    // for life, since the last answered one
	tries    int       // trying: how often
	account  account   // UDP: of what was lost
	keeps    int       // alive: pings since the last full one
	streak   int       // pongs in a row, without a suspicion between
	size     ladder

	rtt  time.Duration // smoothed as in RFC 6298, section 2
	last time.Duration // the last round trip
	base time.Duration // as rtt, without those that our own load has made longer
	mark uint64        // bytes carried until the last ping for life
	busy bool          // more than loaded went between the last two of these

	counts    Traffic
	look      time.Time // when to look at the counts again; zero: nothing goes out
	heard     time.Time // when anything came
	data      time.Time // when datagrams came
	asked     time.Time // datagrams went out and nothing has come since; zero: not so
	pinged    time.Time // a ping went out and nothing has come since; zero: not so
	redialled time.Time

	hold   time.Duration // how long it has to prove itself
	better time.Time     // it has been better than the active path since; zero: it is not
}

type ping struct {
	seq   uint32
	at    time.Time
	size  int
	mark  uint64 // bytes carried until the ping before
	sent  uint32 // bytes of datagrams that went out before it, modulo 2^32
	tried bool   // counted as lost already
}

func (p *path) alive() bool { return p.phase == live || p.phase == suspect }

// pace is the round trip to reckon with: the last one may be the first of many.
func (p *path) pace() time.Duration { return max(p.rtt, p.last) }

// patience is how long a pong, or an answer to a datagram, may take.
func (p *path) patience() time.Duration { return max(slack, 2*p.pace()) }

// try begins at the first try: the back-off is forgotten.
func (p *path) try(now time.Time) {
	p.phase, p.tries, p.due = trying, 0, now
}

// renew is for a stream that has just been opened.
func (p *path) renew(now time.Time) {
	p.forgive()
	p.heard, p.due = now, now
	if !p.alive() {
		p.try(now)
	}
}

// end is for a path that is no more.
func (p *path) end(why string) {
	p.lose(why)
	p.phase, p.due, p.pinged = down, time.Time{}, time.Time{}
}

// die sends a live path back to where it has to be tried.
func (p *path) die(now time.Time, why string) {
	p.hold = proof
	if now.Sub(p.since) < young {
		p.hold = min(2*p.hold, proofMax)
	}
	p.lose(why)
	p.try(now)
	if p.kind == UDP {
		p.tries, p.due = 1, now.Add(backoff[0])
	}
}

// lose is what end and die have in common.
func (p *path) lose(why string) {
	p.since, p.died = time.Time{}, why
	p.sent, p.size, p.asked, p.streak, p.account = nil, ladder{}, time.Time{}, 0, account{}
}

// forgive forgets what is unanswered.
func (p *path) forgive() {
	p.sent, p.size.sent, p.streak = nil, nil, 0
	p.asked, p.pinged = time.Time{}, time.Time{}
}

// rouse doubts all that was known.
func (p *path) rouse(now time.Time) {
	switch p.phase {
	case trying:
		p.try(now)
	case live, suspect:
		p.doubt(now)
		if p.kind == UDP {
			p.size.measure(now, p.seq, 0)
		}
	}
}

func (p *path) knock(now time.Time) {
	p.hear(now)
	if p.phase == trying {
		p.due = now
	}
}

func (p *path) doubt(now time.Time) {
	p.phase, p.due, p.streak, p.keeps = suspect, now, 0, fullEvery
}

// count takes note of what the path has carried.
func (p *path) count(now time.Time, t Traffic) {
	sent, received := t.Sent != p.counts.Sent, t.Received != p.counts.Received
	p.counts = t
	switch {
	case sent:
		p.look = now.Add(glance)
	case passed(now, p.look):
		p.look = time.Time{}
	}
	switch {
	case received:
		p.hear(now)
		p.data = now
	case sent && p.asked.IsZero():
		p.asked = now
	}
}

// hear takes note that something came.
func (p *path) hear(now time.Time) {
	p.heard, p.asked, p.pinged = now, time.Time{}, time.Time{}
}

func (p *path) carried() uint64 { return p.counts.Sent + p.counts.Received }

// pong takes note of an answer. One to a ping that is not remembered, or the
// second to the same, says nothing.
func (p *path) pong(now time.Time, seq uint32, r Receipt) {
	g, ok := p.take(seq)
	if !ok {
		return
	}
	p.hear(now)
	p.account.enter(g, r)
	p.answered = max(p.answered, seq)
	p.size.pong(g)
	p.roundTrip(now, now.Sub(g.at), p.carried()-g.mark < loaded)
	p.streak++
	switch p.phase {
	case trying:
		p.phase, p.since, p.died, p.tries, p.keeps = live, now, "", 0, 0
		p.due = now.Add(pingQuick)
		if p.kind == UDP {
			p.size.measure(now, 0, p.size.proved)
		}
	case suspect:
		p.phase = live
	}
}

// take forgets the pings for life up to the one that was answered, which must
// be among those that are remembered.
func (p *path) take(seq uint32) (ping, bool) {
	g, ok := p.size.take(seq)
	for i, life := range p.sent {
		if life.seq == seq {
			g, ok = life, true
		}
		if life.seq > seq {
			if ok {
				p.sent = p.sent[i:]
			}
			return g, ok
		}
	}
	if ok {
		p.sent = nil
	}
	return g, ok
}

func (p *path) roundTrip(now time.Time, d time.Duration, quiet bool) {
	p.last = d
	if p.phase == trying {
		p.rtt, p.base = d, d
		return
	}
	p.rtt += (d - p.rtt) / 8
	switch {
	case !quiet:
	case d < p.base && (p.streak < settledPongs || now.Sub(p.since) < settled):
		// A first ping that waited for a busy machine, or for a radio to wake
		// up, must not keep a session away from UDP for half a minute.
		p.base = d
	default:
		p.base += (d - p.base) / 8
	}
}

// doubtAt is when a live path becomes suspect; zero: nothing is expected of it.
func (p *path) doubtAt() time.Time {
	since := p.asked
	if len(p.sent) > 0 {
		since = earliest(since, p.sent[0].at)
	}
	if since.IsZero() {
		return since
	}
	return since.Add(min(p.patience(), slackMax))
}

// deadAt is when a suspect path is dead; zero: too few pings are unanswered.
func (p *path) deadAt() time.Time {
	if len(p.sent) < deadPings {
		return time.Time{}
	}
	first := p.sent[0].at
	after := deadAfter
	// What came before the pong was due may have set out before a cut.
	if p.kind == APIServer || p.data.After(first.Add(p.patience())) {
		after = deadAfterLong
	}
	at := first.Add(max(after, min(4*p.pace(), deadAfterMax)))
	// The last one that counts must have had time to come back.
	if back := p.sent[deadPings-1].at.Add(max(100*time.Millisecond, p.pace()*3/2)); back.After(at) {
		at = back
	}
	return at
}

// muteAt is when a stream is to be dialled anew; zero: nothing was asked of it.
func (p *path) muteAt() time.Time {
	if p.pinged.IsZero() {
		return time.Time{}
	}
	at := p.pinged.Add(mute / 4)
	for _, t := range [...]time.Time{p.heard, p.redialled} {
		if t = t.Add(mute); t.After(at) {
			at = t
		}
	}
	return at
}

// judge draws conclusions from silence.
func (p *path) judge(now time.Time, todo []Action) []Action {
	if p.phase == live && passed(now, p.doubtAt()) {
		p.doubt(now)
	}
	if p.phase == suspect && passed(now, p.deadAt()) {
		p.die(now, fmt.Sprintf("no answer for %.1f s", now.Sub(p.sent[0].at).Seconds()))
	}
	if p.alive() && p.kind == UDP && !p.size.judge(now, p) {
		p.die(now, fmt.Sprintf("it answers, but carries no datagrams of %d bytes", MinDatagram))
	}
	if p.kind == APIServer && passed(now, p.muteAt()) {
		p.redialled = now
		todo = append(todo, Redial{p.id, fmt.Sprintf("not a byte has come for %.0f s", now.Sub(p.heard).Seconds())})
	}
	return todo
}

// hurry is for a path that is suddenly needed.
func (p *path) hurry(now time.Time) {
	if p.phase == trying && p.kind == UDP {
		p.tries, p.due = 1, now
	}
}

// ask sends the pings that are due. active is the path that carries the
// datagrams, if any.
func (p *path) ask(now time.Time, active *path, jitter func(time.Duration) time.Duration, todo []Action) []Action {
	if p.alive() && passed(now, p.size.due) {
		for _, size := range p.size.round(now, p) {
			todo = p.ping(now, size, todo)
		}
	}
	if p.phase == down || now.Before(p.due) {
		return todo
	}
	switch {
	case p.phase == trying && p.kind == UDP:
		sizes := rungs[len(rungs)-1:]
		if p.tries == 0 {
			sizes = rungs[:]
		}
		for _, size := range sizes {
			todo = p.ping(now, size, todo)
		}
		longest := len(backoff) - 1
		if active == nil {
			longest = backoffAlone
		}
		p.due = now.Add(jitter(backoff[min(p.tries, longest)]))
		p.tries++
		return todo
	case p.phase == trying:
		p.due = now.Add(pingStream)
	case p.phase == suspect || p.streak < proofPongs || now.Sub(p.since) < p.hold:
		p.due = now.Add(pingQuick)
	case p == active:
		p.due = now.Add(pingActive)
	default:
		p.due = now.Add(pingStandby)
	}
	// The full one goes first: when it is lost, the small one tells that it was
	// lost for its size.
	was := p.busy
	p.busy = p.carried()-p.mark > loaded
	if p.keeps++; (p.keeps >= fullEvery || p.busy || was) && p == active && p.kind == UDP {
		p.keeps = 0
		todo = p.ping(now, p.size.proved, todo)
	}
	return p.ping(now, SmallestPing, todo)
}

func (p *path) ping(now time.Time, size int, todo []Action) []Action {
	p.seq++
	g := ping{seq: p.seq, at: now, size: size, mark: p.mark, sent: uint32(p.counts.Sent)}
	if p.pinged.IsZero() {
		p.pinged = now
	}
	list := &p.sent
	if size > SmallestPing {
		list = &p.size.sent
	} else {
		p.mark = p.carried()
	}
	if len(*list) == keepSent {
		*list = (*list)[1:]
	}
	*list = append(*list, g)
	return append(todo, Ping{p.id, p.seq, size})
}

// next is when there is something to judge or to ask.
func (p *path) next() time.Time {
	t := p.due
	switch p.phase {
	case live:
		t = earliest(t, p.doubtAt())
	case suspect:
		t = earliest(t, p.deadAt())
	}
	if p.alive() {
		t = earliest(t, p.size.due, p.size.missedAt(p), p.look)
	}
	return t
}

// passed reports whether t has come; the zero time never does.
func passed(now, t time.Time) bool { return !t.IsZero() && !now.Before(t) }
