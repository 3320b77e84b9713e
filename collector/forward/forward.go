// Package forward sends what is in the write-ahead log to each destination, the
// remote writes of the configuration.
//
//	log ──▶ Reader ──▶ relabelling, external labels ──▶ request ──▶ destination a
//	    ──▶ Reader ──▶ relabelling, external labels ──▶ request ──▶ destination b
//
// A destination has a position in the log of its own, kept on disk, so that one
// that is away holds up no other. What it is sent goes in waves: requests that
// are under way at once, of different series, as many as there is to send. The
// position moves when all of a wave are answered; so every series arrives in
// order, also after an outage or a restart. Nothing waits in memory but the
// wave. What was acknowledged is not sent again; after a kill the last wave may
// be.
//
// Remote write 2.0 is spoken with those who know it, 1.0 with the others;
// which, the answers tell. An answer that blames the request (no connection,
// 5xx, 429, credentials) is followed by another attempt until the log has
// dropped the samples; one that blames the samples is not.
//
// The package scrapes nothing and never writes to the log. A Set is safe for
// concurrent use.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/collector/wal"
)

// Deps are what a Set needs from its process.
type Deps struct {
	Log    *wal.Log
	Logger *slog.Logger
	// Registerer takes the metrics of the destinations, under Prometheus'
	// names.
	Registerer prometheus.Registerer
}

// Set is the destinations of a configuration.
type Set struct {
	deps      Deps
	metrics   *metrics
	positions *positions

	mu           sync.Mutex
	destinations map[string]*running
}

// running is a destination at work.
type running struct {
	*destination

	write    *config.RemoteWriteConfig
	external labels.Labels
	// drain makes it end when it has sent all, cancel at once.
	drain, cancel context.CancelFunc
	done          chan struct{}
}

// New reads the positions of an earlier run from a directory. It sends
// nothing before Apply.
func New(dir string, deps Deps) (*Set, error) {
	p, err := loadPositions(dir)
	if err != nil {
		return nil, err
	}
	return &Set{
		deps: deps, positions: p,
		metrics:      newMetrics(deps.Registerer, deps.Log),
		destinations: map[string]*running{},
	}, nil
}

// Apply makes conf's remote writes the destinations. Those that stay go on
// where they are, with their new settings; to new ones nothing is sent that was
// scraped before. An error has changed nothing.
func (s *Set) Apply(conf *config.Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	writes := Keys(conf.RemoteWriteConfigs)
	clients := make(map[string]*client, len(writes))
	for key, w := range writes {
		c, err := newClient(w)
		if err != nil {
			return err
		}
		clients[key] = c
	}
	for key, r := range s.destinations {
		if !r.same(writes[key], conf.GlobalConfig.ExternalLabels) {
			s.stop(key)
		}
	}
	if err := s.positions.keep(writes, s.deps.Log.End()); err != nil {
		return err
	}
	for key, w := range writes {
		if s.destinations[key] == nil {
			s.start(key, w, conf.GlobalConfig.ExternalLabels, clients[key])
		}
	}
	s.release()
	return nil
}

func (r *running) same(w *config.RemoteWriteConfig, external labels.Labels) bool {
	return reflect.DeepEqual(r.write, w) && labels.Equal(r.external, external)
}

func (s *Set) start(key string, w *config.RemoteWriteConfig, external labels.Labels, c *client) {
	ctx, cancel := context.WithCancel(context.Background())
	draining, drain := context.WithCancel(context.Background())
	d := newDestination(key, w, external, s.deps)
	d.client = c
	d.reader = s.deps.Log.Reader(s.positions.get(key))
	d.acked = func(p wal.Position) { s.acknowledge(key, p) }
	d.metrics = s.metrics.of(d)
	r := &running{destination: d, write: w, external: external, drain: drain, cancel: cancel, done: make(chan struct{})}
	s.destinations[key] = r
	s.metrics.watch(d)
	go func() {
		defer close(r.done)
		d.run(ctx, draining)
	}()
}

// stop ends a destination. Its request under way is given up.
func (s *Set) stop(key string) {
	r := s.destinations[key]
	r.cancel()
	<-r.done
	s.metrics.forget(r.destination)
	delete(s.destinations, key)
}

// acknowledge notes that a destination has everything before the position.
func (s *Set) acknowledge(key string, p wal.Position) {
	if err := s.positions.advance(key, p); err != nil {
		s.deps.Logger.Warn("not noted what was sent, a restart sends it again", "err", err)
		return
	}
	s.release()
}

// release frees what no destination needs.
func (s *Set) release() {
	if p, any := s.positions.least(); any {
		s.deps.Log.Release(p)
	} else {
		s.deps.Log.Release(s.deps.Log.End())
	}
}

// Close sends what is in the log, for a bounded time, and stops. Nothing is
// written to the log any more when it is called.
func (s *Set) Close(timeout time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for _, r := range s.destinations {
		r.drain()
	}
	var behind []error
	expired := false
	for key, r := range s.destinations {
		if !expired {
			select {
			case <-r.done:
			case <-deadline.C:
				expired = true
			}
		}
		s.stop(key)
		if left := r.pending(s.deps.Log); left > 0 {
			behind = append(behind, fmt.Errorf("%s has not got the last %d samples", key, left))
		}
	}
	if err := errors.Join(behind...); err != nil {
		s.deps.Logger.Warn("stopped before the backends had everything that was scraped, the rest stays in the log", "err", err)
	}
	return s.positions.save()
}

// Keys gives each remote write a key that stays the same over edits of its
// settings: its URL, numbered if there are several.
func Keys(writes []*config.RemoteWriteConfig) map[string]*config.RemoteWriteConfig {
	keys := make(map[string]*config.RemoteWriteConfig, len(writes))
	for _, w := range writes {
		url := w.URL.Redacted()
		key := url
		for n := 2; keys[key] != nil; n++ {
			key = fmt.Sprintf("%s#%d", url, n)
		}
		keys[key] = w
	}
	return keys
}
