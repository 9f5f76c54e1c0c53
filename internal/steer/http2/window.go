package http2

// Flow control is end to end although there are two connections: what an end may
// send is what we give it, and we give back only what the other connection has
// taken. So an end that does not read stops the one that writes, and what waits
// in between is never more than the windows we gave.
//
// The windows we give are our own and not those of the end behind us: a window
// is a promise to keep bytes, and we are the one who keeps them. (An app with an
// initial window of 0 would even stop for ever, as nothing could be taken before
// something came.)

// credit is a window we give: how much may come of a stream or a connection.
type credit struct {
	size  int // what may come before something has to be taken
	ceil  int // what size may grow to
	open  int // what may come now
	freed int // what was taken and not given back yet

	carried int  // bytes taken since size last changed
	dry     bool // since then nothing was left to take at least once
}

// receive counts n bytes that came. It reports false when they were too many.
func (c *credit) receive(n int) bool {
	if n > c.open {
		return false
	}
	c.open -= n
	return true
}

// free counts n bytes that were taken, and reports whether it is time to give
// them back. A window that was carried and of which nothing ever stayed doubles,
// so that a long path does not wait for us, while a stream that nobody reads
// never holds more than a few of its siblings can spare.
func (c *credit) free(n int) bool {
	c.freed += n
	c.carried += n
	c.dry = c.dry || c.waiting() == 0
	if c.dry && c.carried >= c.size && c.size < c.ceil {
		grow := min(c.size, c.ceil-c.size)
		c.size += grow
		c.freed += grow
		c.carried, c.dry = 0, false
	}
	return c.freed > 0 && c.freed >= c.size/4
}

// waiting is how many bytes have come and were not taken.
func (c *credit) waiting() int { return c.size - c.open - c.freed }

// give returns what is to be given back now, in bytes, as if it were told.
func (c *credit) give() uint32 {
	n := c.freed
	c.open += n
	c.freed = 0
	return uint32(n)
}

// allowance is a window that was given to us: bytes that may be sent. SETTINGS
// that make it smaller can bring it below zero (RFC 9113, section 6.9.2).
type allowance int64

// add reports false when the window becomes larger than there can be.
func (a *allowance) add(n int64) bool {
	*a += allowance(n)
	return *a <= windowMax
}
