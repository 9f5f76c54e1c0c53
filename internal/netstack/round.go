package netstack

// turn is how many bytes one may send before the next: a train, so that the reader
// can merge. Where a way is slow, and merging gains nothing, it is slowTurn, about a
// packet: who waits for a train there waits for half a second at 1 Mbit/s.
const (
	turn     = 64 << 10
	slowTurn = 1500
)

// seat is somebody's place in a round.
type seat struct {
	next   sitter
	active bool // in a round
	left   int  // bytes of its turn
}

// sitter is who takes turns in a round.
type sitter interface {
	place() *seat
	empty() bool // has nothing to send
}

// row is a list of sitters.
type row struct{ head, tail sitter }

func (r *row) push(s sitter) {
	s.place().next = nil
	if r.head == nil {
		r.head = s
	} else {
		r.tail.place().next = s
	}
	r.tail = s
}

// round lets those who have something to send take turns (RFC 8290): who had
// nothing comes before those that always have more.
type round struct {
	turn          int // bytes
	fresh, others row
}

// join is for who has something to send, in the round already or not.
func (r *round) join(s sitter) {
	if p := s.place(); !p.active {
		p.active, p.left = true, r.turn
		r.fresh.push(s)
	}
}

// wait is join for who has left for want of room: it is not fresh.
func (r *round) wait(s sitter) {
	p := s.place()
	p.active, p.left = true, r.turn
	r.others.push(s)
}

// first is who sends next; nil: nobody.
func (r *round) first() sitter {
	for {
		from := r.row()
		s := from.head
		if s == nil {
			return nil
		}
		p := s.place()
		switch {
		case s.empty() && (from == &r.others || r.others.head == nil):
			r.leave()
		case s.empty() || p.left <= 0:
			// Who is empty has to queue up before it may be fresh again, or it
			// would come first all the time.
			if p.left <= 0 {
				p.left += r.turn
			}
			from.head = p.next
			r.others.push(s)
		default:
			return s
		}
	}
}

// leave takes out whom first has told.
func (r *round) leave() {
	from := r.row()
	p := from.head.place()
	from.head, p.next, p.active = p.next, nil, false
}

func (r *round) row() *row {
	if r.fresh.head == nil {
		return &r.others
	}
	return &r.fresh
}
