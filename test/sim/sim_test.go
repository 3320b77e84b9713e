// Package sim_test lets everything go wrong with a whole cluster in virtual
// time: members join, leave and crash, links break in one direction or both,
// messages are lost, repeated and overtake each other, backends are slow or
// away, clocks differ, rules are edited. The rulers are the real ones; network,
// gossip and backends are functions (world).
//
// What was promised is checked all the time and at the end (promises). What
// happens follows from a seed. A failure prints the seed and a script: put it
// into a file under testdata to see it again at every run of the tests.
package sim_test

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/sharding"
)

var (
	seed  = flag.Uint64("seed", 0, "simulate this seed only")
	seeds = flag.Uint64("seeds", 16, "how many seeds to simulate")
	from  = flag.Uint64("from", 1, "the first of them")
)

// TestSeeds simulates random scripts.
func TestSeeds(t *testing.T) {
	t.Parallel()
	first, n := *from, *seeds
	if *seed != 0 {
		first, n = *seed, 1
	}
	if testing.Short() {
		n = min(n, 4)
	}
	for i := first; i < first+n; i++ {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			simulate(t, randomScript(i))
		})
	}
}

// TestScripts simulates the scripts of testdata: what went wrong once.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			s, err := readScript(f)
			require.NoError(t, err)
			simulate(t, s)
		})
	}
}

func TestAScriptIsReadAsItIsPrinted(t *testing.T) {
	t.Parallel()
	s := randomScript(5)
	file := filepath.Join(t.TempDir(), "s.txt")
	require.NoError(t, writeFile(file, s.String()))
	again, err := readScript(file)
	require.NoError(t, err)
	require.Equal(t, s.String(), again.String())
}

func simulate(t *testing.T, s script) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(ctx, t, s)
		for i := range s.members {
			w.join(fmt.Sprintf("m%d", i))
		}
		begun := time.Now()
		go w.watch()
		for _, e := range s.events {
			w.sleepUntil(begun.Add(e.at))
			w.happen(e)
		}
		w.sleepUntil(begun.Add(s.lasts))
		w.putRight()
		w.judge()
		cancel()
		w.end()
		require.Empty(t, w.faults, "run it again with: go test ./test/sim -run TestSeeds -seed %d\nor put this into a file under test/sim/testdata:\n%s", s.seed, s)
	})
}

func (w *world) sleepUntil(at time.Time) {
	select {
	case <-time.After(time.Until(at)):
	case <-w.ctx.Done():
	}
}

// happen makes one event happen.
func (w *world) happen(e event) {
	arg := func(i int) string {
		if i < len(e.args) {
			return e.args[i]
		}
		return ""
	}
	if w.careful && (e.verb == "crash" || e.verb == "leave") && !w.spares(arg(0)) {
		return
	}
	w.mu.Lock()
	w.calm = time.Now()
	w.mu.Unlock()
	switch e.verb {
	case "join":
		w.join(arg(0))
	case "crash":
		w.crash(arg(0))
	case "leave":
		w.leave(arg(0))
	case "edit":
		n, _ := strconv.Atoi(arg(0))
		w.edit(n)
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := w.disturb(e.verb, arg); err != nil {
			w.t.Fatalf("event %q: %s", e, err)
		}
	}
}

// spares tells whether all others have been ready, and nothing has happened to
// them, for so long that the successors of a member's groups know their state.
func (w *world) spares(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	others := 0
	for _, m := range w.members {
		switch {
		case m.name == name:
		case m.dead && time.Since(m.died) < spareTime || !m.dead && m.state == sharding.Leaving:
			return false
		case !m.dead && m.state == sharding.Ready && time.Since(m.readySince) > spareTime:
			others++
		}
	}
	return others >= 2 && w.loss == 0
}

// disturb changes how links, clocks and backends behave.
func (w *world) disturb(verb string, arg func(int) string) (err error) {
	switch verb {
	case "cut":
		w.cut[[2]string{arg(0), arg(1)}] = true
	case "isolate":
		for name := range w.members {
			if name == arg(0) {
				continue
			}
			w.cut[[2]string{arg(0), name}], w.cut[[2]string{name, arg(0)}] = true, true
		}
	case "heal":
		clear(w.cut)
	case "loss":
		w.loss, err = strconv.ParseFloat(arg(0), 64)
	case "skew":
		if m := w.members[arg(0)]; m != nil {
			m.skew, err = time.ParseDuration(arg(1))
		}
	case "fail":
		w.named(arg(0)).down = true
	case "slow":
		w.named(arg(0)).slow, err = time.ParseDuration(arg(1))
	case "mend":
		w.named(arg(0)).down, w.named(arg(0)).slow = false, 0
	default:
		err = fmt.Errorf("unknown verb %q", verb)
	}
	return err
}

func (w *world) named(name string) *backend {
	for i := range w.backends {
		if backendOf(i) == name {
			return &w.backends[i]
		}
	}
	w.t.Fatalf("no backend %q", name)
	return nil
}

// putRight ends all trouble.
func (w *world) putRight() {
	w.mu.Lock()
	clear(w.cut)
	w.loss, w.calm = 0, time.Now()
	for i := range w.backends {
		w.backends[i].down, w.backends[i].slow = false, 0
	}
	none := true
	for _, m := range w.alive() {
		m.skew = 0
		none = none && m.state != stayers
	}
	w.mu.Unlock()
	if none {
		w.join("m0")
		w.join("spare")
	}
}
