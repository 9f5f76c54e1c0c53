package flags

import (
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"podnet.dev/client/localapi"
)

// leaseFlags are --lease, and --ephemeral, which makes it that of a job at most.
func leaseFlags(f *pflag.FlagSet, to *time.Duration, preset time.Duration) {
	l := &leaseFlag{to: to, given: preset}
	l.apply()
	f.Var(l, "lease", "how long the gateway keeps a laptop that has vanished, 1m to 15m")
	f.BoolFunc("ephemeral", "a lease of 2m at most, for what may be killed: as with CI=true", func(text string) error {
		yes, err := strconv.ParseBool(text)
		l.ephemeral = yes
		l.apply()
		return err
	})
}

// leaseFlag puts both flags together, in whichever order they come.
type leaseFlag struct {
	to        *time.Duration
	given     time.Duration
	ephemeral bool
}

func (l *leaseFlag) apply() {
	if *l.to = l.given; l.ephemeral {
		*l.to = min(l.given, localapi.LeaseEphemeral)
	}
}

// Set, String and Type make it a flag.
func (l *leaseFlag) Set(text string) (err error) {
	l.given, err = time.ParseDuration(text)
	l.apply()
	return err
}

func (l *leaseFlag) String() string { return l.given.String() }
func (l *leaseFlag) Type() string   { return "duration" }

func defaultLease(environ []string) time.Duration {
	if InCI(environ) {
		return localapi.LeaseEphemeral
	}
	return localapi.LeaseDefault
}
