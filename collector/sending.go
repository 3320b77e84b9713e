package collector

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/tocsin-rules/tocsin/collector/backlog"
)

const (
	// markInterval is how often it is noted what was sent.
	markInterval = 5 * time.Second
	// watcherTimeout bounds how long a new queue may take to begin, and how
	// long it is waited for where the log is empty and nothing tells.
	watcherTimeout = 5 * time.Second
	watcherPoll    = 20 * time.Millisecond
	// commitSlack is added to the longest scrape to bound how long after its
	// timestamp a sample is in the log.
	commitSlack = time.Second
)

// sending sends what is in the log: first what an earlier run has left, by a
// backlog.Sender for each remote write, then all else through the queues of
// Prometheus' remote storage. A queue starts when its sender has caught up, so
// that a backend gets each series in order.
type sending struct {
	path    string
	storage *remote.Storage
	deps    Deps
	metrics metricReader
	backlog *backlog.Metrics

	// ctx ends the senders, running counts and senders waits for them.
	ctx     context.Context
	stop    context.CancelFunc
	senders sync.WaitGroup
	running atomic.Int64

	// lock guards the rest. It is a channel because a sender that is told to
	// stop must be able to give up waiting for it.
	lock chan struct{}
	conf *config.Config
	// queued is the configuration of the queues that run.
	queued *config.Config
	marks  *marks
	// behind holds the remote writes whose queues don't run yet, by key.
	behind map[string]*catchUp
}

// catchUp is a sender at work.
type catchUp struct {
	*backlog.Sender
	stop context.CancelFunc
	done chan struct{}
}

func newSending(path string, rs *remote.Storage, m *marks, deps Deps) *sending {
	ctx, stop := context.WithCancel(context.Background())
	return &sending{
		path: path, storage: rs, deps: deps,
		metrics: metricReader{deps.Registry},
		backlog: backlog.NewMetrics(deps.Registry),
		ctx:     ctx, stop: stop,
		lock:   make(chan struct{}, 1),
		marks:  m,
		behind: map[string]*catchUp{},
	}
}

// apply makes conf the configuration. Remote writes that are behind go on with
// their new settings; of those that are new nothing is sent that was scraped
// before.
func (s *sending) apply(conf *config.Config) error {
	s.lock <- struct{}{}
	defer s.unlock()
	old, wereBehind := s.conf, s.interruptSenders()
	s.conf = conf
	writes := remoteWrites(conf)
	s.marks.keepOnly(writes)
	behind := map[string]bool{}
	for key, w := range writes {
		if !s.marks.has(key) {
			s.marks.advance(key, time.Now().UnixMilli())
			continue
		}
		behind[key] = old == nil || wereBehind[key] || s.strands(old, key, w)
	}
	// What the old queues have in memory goes out before a sender starts.
	if _, err := s.startQueues(behind); err != nil {
		return err
	}
	for key, w := range writes {
		if behind[key] {
			if err := s.startSender(key, w); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sending) unlock() { <-s.lock }

// interruptSenders notes what was sent, ends the senders that are behind and
// tells which they were.
func (s *sending) interruptSenders() map[string]bool {
	behind := make(map[string]bool, len(s.behind))
	for key, c := range s.behind {
		c.stop()
		<-c.done
		behind[key] = true
	}
	s.advanceMarks(false)
	clear(s.behind)
	return behind
}

// strands tells whether new settings replace a queue that has much to send
// still, which the new queue would leave out.
func (s *sending) strands(old *config.Config, key string, w *config.RemoteWriteConfig) bool {
	replaced := !reflect.DeepEqual(remoteWrites(old)[key], w) ||
		!labels.Equal(old.GlobalConfig.ExternalLabels, s.conf.GlobalConfig.ExternalLabels)
	return replaced && time.Since(time.UnixMilli(s.marks.at[key])) > 2*s.window(w)
}

func (s *sending) startSender(key string, w *config.RemoteWriteConfig) error {
	client, err := remote.NewWriteClient(w.Name, clientConfig(w))
	if err != nil {
		return fmt.Errorf("remote write to %q: %w", w.URL.Redacted(), err)
	}
	ctx, stop := context.WithCancel(s.ctx)
	c := &catchUp{stop: stop, done: make(chan struct{}), Sender: backlog.New(backlog.Config{
		StoragePath:    s.path,
		RemoteWrite:    w,
		ExternalLabels: s.conf.GlobalConfig.ExternalLabels,
		After:          s.marks.at[key],
		Grace:          s.grace(),
	}, backlog.Deps{Client: client, Logger: s.deps.Logger.With("component", "backlog", "url", w.URL.Redacted()), Metrics: s.backlog})}
	s.behind[key] = c
	s.running.Add(1)
	s.senders.Go(func() {
		defer s.running.Add(-1)
		defer close(c.done)
		defer stop()
		s.catchUp(ctx, key, c.Sender)
	})
	return nil
}

// catchUp runs a sender to its end. If the log can't be read the queue starts
// nevertheless: what is scraped from now on matters more.
func (s *sending) catchUp(ctx context.Context, key string, sender *backlog.Sender) {
	handOver := func(ctx context.Context) (int64, error) { return s.handOver(ctx, key) }
	err := sender.Run(ctx, handOver)
	if err == nil || ctx.Err() != nil {
		return
	}
	s.deps.Logger.Error("not all that an earlier run has left was sent", "remote_write", key, "err", err)
	if _, err := handOver(ctx); err != nil && ctx.Err() == nil {
		s.deps.Logger.Error("remote write queue not started", "remote_write", key, "err", err)
	}
}

// handOver starts the queue of a remote write that has caught up and returns a
// time, in milliseconds, from which on the queue sends everything.
func (s *sending) handOver(ctx context.Context, key string) (int64, error) {
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer s.unlock()
	if c, waits := s.behind[key]; waits {
		s.marks.advance(key, c.Sent()-s.grace().Milliseconds())
		delete(s.behind, key)
	}
	behind := make(map[string]bool, len(s.behind))
	for other := range s.behind {
		behind[other] = true
	}
	queues, err := s.startQueues(behind)
	if err != nil {
		return 0, err
	}
	return s.awaitWatchers(ctx, queues)
}

// awaitWatchers waits until the queues have noted when they began; they leave
// out what was scraped before.
func (s *sending) awaitWatchers(ctx context.Context, n int) (int64, error) {
	timeout := time.NewTimer(watcherTimeout)
	defer timeout.Stop()
	poll := time.NewTicker(watcherPoll)
	defer poll.Stop()
	for s.metrics.watchers() < n {
		s.storage.Notify()
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-timeout.C:
			n = 0
		case <-poll.C:
		}
	}
	return time.Now().UnixMilli(), nil
}

// startQueues makes queues run for all remote writes but those behind and
// returns their number. It leaves the remote storage alone where nothing
// changes for it, because that exchanges the clients of the queues in use.
func (s *sending) startQueues(behind map[string]bool) (int, error) {
	conf := *s.conf
	conf.RemoteWriteConfigs = nil
	writes := remoteWrites(s.conf)
	for _, key := range slices.Sorted(maps.Keys(writes)) {
		if !behind[key] {
			conf.RemoteWriteConfigs = append(conf.RemoteWriteConfigs, writes[key])
		}
	}
	n := len(conf.RemoteWriteConfigs)
	if s.queued != nil && reflect.DeepEqual(s.queued.RemoteWriteConfigs, conf.RemoteWriteConfigs) &&
		labels.Equal(s.queued.GlobalConfig.ExternalLabels, conf.GlobalConfig.ExternalLabels) {
		return n, nil
	}
	s.queued = &conf
	return n, s.storage.ApplyConfig(&conf)
}

// run notes from time to time what was sent, until ctx ends.
func (s *sending) run(ctx context.Context) {
	tick := time.NewTicker(markInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.note(false); err != nil {
			s.deps.Logger.Warn("not noted what was sent, a restart may send it again", "err", err)
		}
	}
}

// note saves up to where each remote write has sent everything. With all, the
// queues have sent the whole log.
func (s *sending) note(all bool) error {
	s.lock <- struct{}{}
	defer s.unlock()
	s.advanceMarks(all)
	return s.marks.save()
}

func (s *sending) advanceMarks(all bool) {
	if s.conf == nil {
		return
	}
	now, sent := time.Now().UnixMilli(), s.metrics.sentUntil()
	for key, w := range remoteWrites(s.conf) {
		ms, known := sent[w.URL.Redacted()]
		switch c := s.behind[key]; {
		case c != nil:
			s.marks.advance(key, c.Sent()-s.grace().Milliseconds())
		case all:
			s.marks.advance(key, now)
		case known:
			s.marks.advance(key, ms-s.window(w).Milliseconds())
		}
	}
}

// window bounds how far the shards of a queue may be apart: what is older than
// the latest sample that was sent by more than this was sent as well.
func (s *sending) window(w *config.RemoteWriteConfig) time.Duration {
	return time.Duration(w.RemoteTimeout) + time.Duration(w.QueueConfig.BatchSendDeadline) + s.grace()
}

// grace bounds how long after its timestamp a sample is in the log.
func (s *sending) grace() time.Duration {
	longest := time.Duration(s.conf.GlobalConfig.ScrapeTimeout)
	// It was checked that they can be had.
	scrapes, _ := s.conf.GetScrapeConfigs()
	for _, sc := range scrapes {
		longest = max(longest, time.Duration(sc.ScrapeTimeout))
	}
	return longest + commitSlack
}

// close sends what is waiting, for a bounded time, and notes what was sent.
// Nothing is scraped any more when it is called.
func (s *sending) close() error {
	caughtUp := s.running.Load() == 0
	s.stop()
	s.senders.Wait()
	drained := s.drain()
	if err := s.note(caughtUp && drained); err != nil {
		return fmt.Errorf("a restart may send again what was sent: %w", err)
	}
	return nil
}

// remoteWrites gives each remote write a key that stays the same over edits of
// its settings: its URL, numbered if there are several.
func remoteWrites(conf *config.Config) map[string]*config.RemoteWriteConfig {
	writes := make(map[string]*config.RemoteWriteConfig, len(conf.RemoteWriteConfigs))
	for _, w := range conf.RemoteWriteConfigs {
		url := w.URL.Redacted()
		key := url
		for n := 2; writes[key] != nil; n++ {
			key = fmt.Sprintf("%s#%d", url, n)
		}
		writes[key] = w
	}
	return writes
}
