package up

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tocsin-rules/tocsin/up/process"
	"github.com/tocsin-rules/tocsin/up/screen"
	"github.com/tocsin-rules/tocsin/web/server"
)

const (
	// startBound is how long one tier may take to get ready, which for a
	// backend includes reading its log after a crash.
	startBound = 2 * time.Minute
	// stopBound is how long the children may take to stop altogether.
	stopBound    = 9 * time.Second
	lookInterval = time.Second
)

// running is a child with its supervisor.
type running struct {
	*process.Process
	url    string
	member bool
	cancel context.CancelFunc
	done   chan struct{}
}

// system is everything that runs.
type system struct {
	layout layout
	dirs   dirs
	logger *slog.Logger
	tiers  [][]*running
	inbox  *inbox
	poller poller
	// stopBound is how long stop may take.
	stopBound time.Duration

	mu    sync.Mutex
	phase screen.Phase
}

func newSystem(l layout, d dirs, tiers [][]child, logger *slog.Logger) *system {
	s := &system{
		layout: l, dirs: d, logger: logger, inbox: &inbox{}, poller: newPoller(),
		stopBound: stopBound, phase: screen.Starting,
	}
	for i, children := range tiers {
		var tier []*running
		for _, c := range children {
			tier = append(tier, &running{
				Process: process.New(c.spec, logger), url: c.url, member: i == len(tiers)-1, done: make(chan struct{}),
			})
		}
		s.tiers = append(s.tiers, tier)
	}
	return s
}

// run starts the tiers, waits for ctx to end and stops them. The display and
// the receiver of notifications live as long as the children.
func (s *system) run(ctx context.Context, d display) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if s.layout.embeddedAlertmanager() {
		receiver := s.receiver()
		if err := receiver.Listen(); err != nil {
			return err
		}
		wg.Go(func() { fail(receiver.Run(background)) })
	}
	wg.Go(func() { s.watch(background, d) })
	err := s.start(ctx)
	if err == nil {
		s.setPhase(screen.Running)
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	s.setPhase(screen.Stopping)
	s.stop()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *system) receiver() *server.Server {
	always := func() error { return nil }
	srv := server.New(server.Config{ListenAddress: s.layout.webhook()}, prometheus.NewRegistry(), always, s.logger)
	srv.Handle("POST "+notificationsPath, s.inbox)
	return srv
}

// start starts tier after tier and returns when all are ready.
func (s *system) start(ctx context.Context) error {
	for _, tier := range s.tiers {
		for _, c := range tier {
			c.start(s.logger)
		}
		if err := waitReady(ctx, tier); err != nil {
			return err
		}
	}
	return nil
}

func (c *running) start(logger *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go func() {
		defer close(c.done)
		if err := c.Run(ctx); err != nil {
			logger.Error("process can't be run", "err", err)
		}
	}()
}

func waitReady(ctx context.Context, tier []*running) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startBound, fmt.Errorf("gave up after %s", startBound))
	defer cancel()
	for _, c := range tier {
		if err := c.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop stops the tiers that were started, the last one first. Each may use
// half of the time that is left, the last one all of it.
func (s *system) stop() {
	end := time.Now().Add(s.stopBound)
	for i := len(s.tiers) - 1; i >= 0; i-- {
		left := time.Until(end)
		if i > 0 {
			left /= 2
		}
		s.stopTier(s.tiers[i], time.After(left))
	}
}

func (s *system) stopTier(tier []*running, bound <-chan time.Time) {
	for _, c := range tier {
		if c.cancel != nil {
			c.cancel()
		}
	}
	for _, c := range tier {
		if c.cancel == nil {
			continue
		}
		select {
		case <-c.done:
			continue
		case <-bound:
		}
		s.killTier(tier)
		return
	}
}

// killTier ends what is left of a tier; nothing survives this, so it needs no
// bound.
func (s *system) killTier(tier []*running) {
	for _, c := range tier {
		if err := c.Kill(); err != nil {
			s.logger.Error("process can't be ended", "err", err)
		}
	}
	for _, c := range tier {
		if c.cancel != nil {
			<-c.done
		}
	}
}

func (s *system) setPhase(p screen.Phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = p
}

// watch shows the state until ctx ends, and the last one then.
func (s *system) watch(ctx context.Context, d display) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		d.show(s.state(ctx), time.Now())
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	d.show(s.state(ctx), time.Now())
}

// state gathers what is shown now.
func (s *system) state(ctx context.Context) screen.State {
	s.mu.Lock()
	now := screen.State{Phase: s.phase, Home: s.layout.home(), DataDir: string(s.dirs)}
	s.mu.Unlock()
	var urls []string
	for _, tier := range s.tiers {
		for _, c := range tier {
			p := c.shown()
			if !c.member {
				now.Others = append(now.Others, p)
				continue
			}
			now.Members = append(now.Members, screen.Member{Process: p})
			urls = append(urls, c.url)
		}
	}
	for i, status := range s.poller.all(ctx, urls) {
		now.Members[i].Status = status
	}
	now.Notifications, now.Notified = s.inbox.snapshot()
	return now
}

func (c *running) shown() screen.Process {
	st := c.Status()
	return screen.Process{
		Name: st.Name, URL: c.url, State: string(st.State),
		Restarts: st.Restarts, LastExit: st.LastExit, NotReady: st.NotReady,
	}
}
