package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// figures are what a member says of itself.
type figures struct {
	liveHeap, resident, cpu           float64
	evaluated, missed                 float64
	sent, dropped, queued, checkpoint float64
}

func (p *process) figures() (f figures, err error) {
	for name, to := range map[string]*float64{
		// The collector of garbage runs when the live heap has doubled.
		"go_memstats_next_gc_bytes":                     &f.liveHeap,
		"process_resident_memory_bytes":                 &f.resident,
		"process_cpu_seconds_total":                     &f.cpu,
		"prometheus_rule_group_iterations_total":        &f.evaluated,
		"prometheus_rule_group_iterations_missed_total": &f.missed,
		"prometheus_notifications_sent_total":           &f.sent,
		"prometheus_notifications_dropped_total":        &f.dropped,
		"prometheus_notifications_queue_length":         &f.queued,
		"tocsin_ruler_checkpoint_failures_total":        &f.checkpoint,
	} {
		if *to, _, err = p.metric(name); err != nil {
			return f, err
		}
	}
	f.liveHeap /= 2
	return f, nil
}

func (s *system) all() ([]figures, error) {
	figures := make([]figures, len(s.members))
	for i, m := range s.members {
		var err error
		if figures[i], err = m.figures(); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

func (s *system) measure(ctx context.Context) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %d active alerts\n\nMade on %s with `go run ./bench/alerts`: %d groups of one rule each, interval %s, %d members, %d receivers, %d cores.\n\n",
		s.alerts, time.Now().Format(time.DateOnly), s.groups, s.interval, members, receivers, runtime.NumCPU())
	if err := pause(ctx, 3*s.interval); err != nil {
		return "", err
	}
	idle, err := s.all()
	if err != nil {
		return "", err
	}
	raised := time.Now()
	if err := s.write(ctx, 1); err != nil {
		return "", err
	}
	if err := until(ctx, 10*s.interval, s.allKnown); err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "All receivers knew all alerts %s after the samples were written.\n\n", time.Since(raised).Round(time.Second))
	if err := pause(ctx, 2*s.interval); err != nil {
		return "", err
	}
	before, err := s.all()
	if err != nil {
		return "", err
	}
	began := time.Now()
	slowest := s.watchSlowest(ctx)
	after, err := s.all()
	if err != nil {
		return "", err
	}
	s.table(&b, idle, before, after, slowest, time.Since(began))
	err = s.api(&b)
	return b.String(), err
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *system) allKnown() error {
	for _, r := range s.receivers {
		if known, _, _ := r.counts(); known < s.alerts {
			return fmt.Errorf("a receiver knows %d alerts of %d", known, s.alerts)
		}
	}
	return nil
}

// watchSlowest returns the longest that a group's slot took on each member while
// the duration passed.
func (s *system) watchSlowest(ctx context.Context) []float64 {
	slowest := make([]float64, len(s.members))
	for end := time.Now().Add(s.duration); time.Now().Before(end) && ctx.Err() == nil; {
		for i, m := range s.members {
			if _, took, err := m.metric("prometheus_rule_group_last_duration_seconds"); err == nil {
				slowest[i] = max(slowest[i], took)
			}
		}
		_ = pause(ctx, s.interval/3)
	}
	return slowest
}

func (s *system) table(b *strings.Builder, idle, before, after []figures, slowest []float64, took time.Duration) {
	intervals := took.Seconds() / s.interval.Seconds()
	share := float64(s.alerts) / float64(len(s.members))
	fmt.Fprintf(b, "Over %s:\n\n| member | slots | missed | slowest batch | CPU per interval | alerts sent | dropped | queued at the end | failed checkpoints | live heap, no alerts | live heap | resident |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n", took.Round(time.Second))
	heap := 0.0
	for i, a := range after {
		heap += a.liveHeap - idle[i].liveHeap
		fmt.Fprintf(b, "| member-%d | %.0f | %.0f | %.2f s | %.2f s | %.0f | %.0f | %.0f | %.0f | %.0f MiB | %.0f MiB | %.0f MiB |\n", i,
			a.evaluated-before[i].evaluated, a.missed, slowest[i], (a.cpu-before[i].cpu)/intervals, a.sent-before[i].sent, a.dropped, a.queued, a.checkpoint,
			idle[i].liveHeap/(1<<20), a.liveHeap/(1<<20), a.resident/(1<<20))
	}
	fmt.Fprintf(b, "\nLive heap for each active alert: %.0f bytes, checkpoints for others and all buffers included (about %.0f alerts a member).\n\n",
		heap/float64(s.alerts), share)
}

// api asks one member for everything.
func (s *system) api(b *strings.Builder) error {
	b.WriteString("| request | time | bytes |\n|---|---|---|\n")
	for _, path := range []string{
		"/api/v1/alerts", "/api/v1/rules", "/api/v1/rules?exclude_alerts=true", "/api/v1/rules?group_limit=1", "/api/v1/alertmanagers", "/api/v1/status/cluster",
	} {
		began := time.Now()
		body, err := s.members[0].get(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(body[max(0, len(body)-2000):]), `"warnings"`) {
			fmt.Fprintf(os.Stderr, "%s has warnings: %s\n", path, body[max(0, len(body)-500):])
		}
		fmt.Fprintf(b, "| `%s` | %.2f s | %d |\n", path, time.Since(began).Seconds(), len(body))
	}
	return nil
}
