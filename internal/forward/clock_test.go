package forward

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"
)

// stepped is a time at which the wall clock has been set back by an hour.
func stepped(t time.Time) time.Time {
	const secondsAt = 30 // of the word that has the wall clock, where there is a monotonic one beside it
	*(*uint64)(unsafe.Pointer(&t)) -= 3600 << secondsAt
	return t
}

// Flows that nobody uses are gone in time, and make room, when the wall clock is set
// back meanwhile.
func TestClockThatIsSetBack(t *testing.T) {
	now := time.Now()
	later := stepped(now.Add(2 * time.Minute))
	if wall := later.Round(0).Sub(now.Round(0)); wall != 2*time.Minute-time.Hour || later.Sub(now) != 2*time.Minute {
		t.Skipf("time.Time is another one: %v by the wall, %v in truth", wall, later.Sub(now))
	}
	f := &Forwarder{accounts: newAccounts(Limits{})}
	f.dgram.init()
	cancelled := false
	fl := &dgramFlow{key: dgramKey{src: netip.MustParseAddrPort("198.18.0.2:4000"), proto: UDP}, far: &far{cancel: func() { cancelled = true }}}
	fl.acct = f.accounts.of(fl.key.src.Addr())
	fl.heard()
	f.dgram.add(fl)
	if idle := fl.idle(later); idle < evictIdle {
		t.Errorf("a flow of two minutes ago has been idle for %v", idle)
	}
	if f.sweep(later); !cancelled {
		t.Error("it is not gone")
	}
	f.accounts.sweep(later)
	if n := len(f.accounts.list()); n != 0 {
		t.Errorf("%d accounts are kept", n)
	}
}
