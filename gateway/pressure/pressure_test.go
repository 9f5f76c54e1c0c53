package pressure

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestNext(t *testing.T) {
	const budget = 1000
	for _, c := range []struct {
		was  Level
		used uint64
		want Level
	}{
		{Calm, 0, Calm}, {Calm, 899, Calm}, {Calm, 900, Full}, {Calm, 949, Full}, {Calm, 950, Over}, {Calm, 5000, Over},
		{Full, 899, Full}, {Full, 850, Full}, {Full, 849, Calm}, {Over, 900, Full}, {Over, 860, Full}, {Over, 849, Calm},
	} {
		if got := next(c.was, Reading{Used: c.used, Budget: budget}); got != c.want {
			t.Errorf("%d after %d of %d: %d, want %d", c.was, c.used, budget, got, c.want)
		}
	}
	if got := next(Calm, Reading{Used: 1 << 40}); got != Calm {
		t.Errorf("without a limit: %d", got)
	}
}

// A gateway fills up, refuses, sheds until there is room, and takes flows again.
func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		r := Reading{Used: 500, Budget: 1000}
		var full bool
		var shed int
		var levels []Level
		var limits []int64
		c := Control{
			Read:    func() Reading { mu.Lock(); defer mu.Unlock(); return r },
			SetFull: func(f bool) { full = f },
			Shed:    func(int) { mu.Lock(); defer mu.Unlock(); shed++; r.Used -= 20 },
			Changed: func(l Level, _ Reading) { levels = append(levels, l) },
			collect: func() {}, limit: func(n int64) { limits = append(limits, n) },
		}
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		for _, step := range []struct {
			used, outside uint64
			full          bool
			shed          int
		}{
			{700, 0, false, 0}, {910, 100, true, 0}, {990, 105, true, 3}, {880, 900, true, 3}, {800, 0, false, 3},
		} {
			mu.Lock()
			r.Used, r.Outside = step.used, step.outside
			mu.Unlock()
			time.Sleep(4 * every)
			synctest.Wait()
			if full != step.full || shed != step.shed {
				t.Errorf("at %+v: full %v, shed %d", step, full, shed)
			}
		}
		if want := []Level{Full, Over, Full, Calm}; !slices.Equal(levels, want) {
			t.Errorf("levels %v, want %v", levels, want)
		}
		if want := []int64{900, 250, 1000}; !slices.Equal(limits, want) {
			t.Errorf("Go's limit was %v, want %v", limits, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestReader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.max")
	for _, c := range []struct {
		text    string
		goLimit int64
		want    uint64
	}{
		{"1000000\n", 1<<63 - 1, 900000}, {"1000000\n", 800000, 800000}, {"max\n", 800000, 800000}, {"max\n", 1<<63 - 1, 0},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newReader(file, c.goLimit)
		if r.budget != c.want {
			t.Errorf("%q with %d: %d, want %d", c.text, c.goLimit, r.budget, c.want)
		}
		if got := r.Read(); got.Used < 100<<10 || got.Used > 1<<30 || got.Budget != c.want {
			t.Errorf("%+v", got)
		}
	}
	if r := newReader(filepath.Join(t.TempDir(), "none"), 800000); r.sockets || r.budget != 800000 {
		t.Errorf("without a cgroup: %+v", r)
	}
}

func TestKernel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.stat")
	text := "anon 1000\nfile 5000\nkernel_stack 10\npagetables 20\nsock 300\nslab_reclaimable 7000\nslab_unreclaimable 400\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := kernel(file); got != 730 {
		t.Errorf("%d", got)
	}
}
