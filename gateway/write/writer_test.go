package write

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWriterWritesOnceWhileTheWatchIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks, writes atomic.Int32
		w := New(nil, slog.New(slog.DiscardHandler), func() { looks.Add(1) })
		write := func(what string, err error) {
			w.Submit(t.Context(), "peer/1", what, func(context.Context) error { writes.Add(1); time.Sleep(time.Millisecond); return err })
		}
		write("a", nil)
		write("b", nil) // under way: to be wished again at the next look
		time.Sleep(10 * time.Millisecond)
		if writes.Load() != 1 || looks.Load() != 1 {
			t.Fatalf("%d writes, %d looks asked for", writes.Load(), looks.Load())
		}
		write("a", nil) // the watch does not show it yet
		write("b", nil)
		time.Sleep(10 * time.Millisecond)
		if writes.Load() != 2 {
			t.Fatalf("%d writes, want the second wish written and the first not again", writes.Load())
		}
		asked := looks.Load()
		time.Sleep(settle)
		if looks.Load() == asked {
			t.Error("nobody looks whether the write has lasted")
		}
		write("b", nil) // somebody undid it
		time.Sleep(10 * time.Millisecond)
		if writes.Load() != 3 {
			t.Errorf("%d writes, want a third", writes.Load())
		}
	})
}

func TestWriterRetriesWithoutHaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes atomic.Int32
		var w *Writer
		again := func() {
			w.Submit(t.Context(), "peer/1", "a", func(context.Context) error { writes.Add(1); return errors.New("etcd is busy") })
		}
		w = New(nil, slog.New(slog.DiscardHandler), func() { again() })
		again()
		time.Sleep(5*retryAfter + retryAfter/2)
		if n := writes.Load(); n != 6 || w.Errors() != 6 {
			t.Errorf("%d tries, %d errors in 5.5 s, want 6", n, w.Errors())
		}
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		w.Close()
	})
}
