package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// deviceLogsPerSecond bounds what the device may write. It has lines for single
// packets, which a stranger's packets must not turn into a full disk.
const deviceLogsPerSecond = 50

// deviceLogger hands the device's lines to log at debug level, its "errors"
// too: they are about packets and peers that come and go. wireguard-go
// abbreviates public keys in them and prints no other. A line is all the device
// says of a packet whose inner source is not its peer's: spoofed counts those.
func deviceLogger(log *slog.Logger, spoofed *atomic.Uint64) *device.Logger {
	l := &limiter{now: time.Now}
	write := func(format string, args ...any) {
		if strings.Contains(format, "disallowed source address") {
			spoofed.Add(1)
		}
		if !log.Enabled(context.Background(), slog.LevelDebug) {
			return
		}
		missed, ok := l.allow()
		if !ok {
			return
		}
		if missed > 0 {
			log.Debug("wireguard lines left out", "count", missed)
		}
		log.Debug("wireguard", "text", fmt.Sprintf(format, args...))
	}
	return &device.Logger{Verbosef: write, Errorf: write}
}

// limiter allows deviceLogsPerSecond lines in each second.
type limiter struct {
	now func() time.Time

	mu     sync.Mutex
	second int64
	used   int
	missed int
}

// allow reports whether a line may be written and how many before it were not.
func (l *limiter) allow() (missed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.now().Unix(); s != l.second {
		l.second, l.used = s, 0
	}
	if l.used >= deviceLogsPerSecond {
		l.missed++
		return 0, false
	}
	l.used++
	missed, l.missed = l.missed, 0
	return missed, true
}
