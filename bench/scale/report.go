package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// startTimeout bounds how long it takes until every group has run.
	startTimeout = 10 * time.Minute
	polling      = time.Second
)

// awaitFirstSlots waits until each group runs on one member and has had a slot.
func (c *cluster) awaitFirstSlots(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(polling)
	defer ticker.Stop()
	for {
		groups, evaluated := 0, uint64(0)
		statuses, err := c.statuses(ctx)
		for _, s := range statuses {
			groups += s.Groups
			evaluated += s.SlotsEvaluated
		}
		if groups == o.groups && evaluated >= uint64(2*o.groups) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d of %d groups run, %d slots were evaluated", groups, o.groups, evaluated), err)
		}
	}
}

// usage is what a process has used.
type usage struct{ cpu, resident, heap, checkpoints float64 }

func (c *cluster) usage(ctx context.Context, i int) (u usage, err error) {
	body, err := get(ctx, c.urls[i]+"/metrics")
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, _ := strconv.ParseFloat(text, 64)
		switch base, _, _ := strings.Cut(name, "{"); base {
		case "process_cpu_seconds_total":
			u.cpu = value
		case "process_resident_memory_bytes":
			u.resident = value
		case "go_memstats_heap_alloc_bytes":
			u.heap = value
		case "tocsin_cluster_checkpoint_bytes_total":
			u.checkpoints += value
		}
	}
	return u, err
}

// usageAtEnd has the member collect garbage first, so that the heap is what is
// kept.
func (c *cluster) usageAtEnd(ctx context.Context, i int) (usage, error) {
	if _, err := get(ctx, c.urls[i]+"/debug/pprof/heap?gc=1"); err != nil {
		return usage{}, err
	}
	return c.usage(ctx, i)
}

type report struct {
	took            time.Duration
	members         []memberReport
	evaluated       uint64
	missed          uint64
	late, fragments int64
	batches, writes int64
}

type memberReport struct {
	name          string
	groups, rules int
	evaluated     uint64
	cost          uint64
	lag           time.Duration
	usage
}

// measure watches the cluster for a while.
func measure(ctx context.Context, o options, c *cluster, b *backend) (*report, error) {
	r := &report{members: make([]memberReport, len(c.urls))}
	for i := range r.members {
		u, err := c.usage(ctx, i)
		if err != nil {
			return nil, err
		}
		r.members[i].cpu, r.members[i].checkpoints = -u.cpu, -u.checkpoints
	}
	before, err := c.statuses(ctx)
	if err != nil {
		return nil, err
	}
	r.count(b, -1)
	started := time.Now()
	if err := r.watch(ctx, o, c); err != nil {
		return nil, err
	}
	r.took = time.Since(started)
	r.count(b, 1)
	for i := range r.members {
		m := &r.members[i]
		m.evaluated -= before[i].SlotsEvaluated
		r.missed -= before[i].SlotsMissed
		r.evaluated += m.evaluated
		u, err := c.usageAtEnd(ctx, i)
		if err != nil {
			return nil, err
		}
		m.cpu += u.cpu
		m.checkpoints += u.checkpoints
		m.resident, m.heap = u.resident, u.heap
	}
	return r, nil
}

func (r *report) count(b *backend, sign int64) {
	r.late += sign * b.late.Load()
	r.fragments += sign * b.fragments.Load()
	r.batches += sign * b.batches.Load()
	r.writes += sign * b.writes.Load()
}

// watch notes the largest lag and the last status of each member.
func (r *report) watch(ctx context.Context, o options, c *cluster) error {
	profiled := make(chan error, 1)
	go func() { profiled <- c.profile(ctx, o) }()
	end := time.After(o.duration)
	ticker := time.NewTicker(polling)
	defer ticker.Stop()
	for ended := false; !ended; {
		select {
		case <-ticker.C:
		case <-end:
			ended = true
		case <-ctx.Done():
			return ctx.Err()
		}
		statuses, err := c.statuses(ctx)
		if err != nil {
			return err
		}
		r.missed = 0
		for i, s := range statuses {
			m := &r.members[i]
			m.name, m.groups, m.rules, m.cost, m.evaluated = s.Member, s.Groups, s.Rules, s.Cost, s.SlotsEvaluated
			m.lag = max(m.lag, time.Duration(s.LagSeconds*float64(time.Second)))
			r.missed += s.SlotsMissed
		}
	}
	return <-profiled
}

// profile keeps profiles of the first member, if that is asked for.
func (c *cluster) profile(ctx context.Context, o options) error {
	if o.profiles == "" {
		return nil
	}
	var errs []error
	for name, query := range map[string]string{"cpu": fmt.Sprintf("profile?seconds=%d", int(o.duration.Seconds())), "heap": "heap?gc=1"} {
		body, err := get(ctx, c.urls[0]+"/debug/pprof/"+query)
		errs = append(errs, err, os.WriteFile(filepath.Join(o.profiles, name+".pprof"), body, 0o600))
	}
	return errors.Join(errs...)
}

// write prints the report as Markdown.
func (r *report) write(w io.Writer, o options) {
	expected := float64(o.groups) * r.took.Seconds() / o.interval.Seconds()
	rules := float64(o.allRules())
	var cpu, resident, heap float64
	var cost uint64
	for _, m := range r.members {
		cost += m.cost
	}
	fmt.Fprintf(w, "%d groups with %.0f rules every %s on %d members, for %s.\n\n", o.groups, rules, o.interval, o.members, r.took.Round(time.Second))
	fmt.Fprintln(w, "| member | groups | rules | load | slots evaluated | largest lag | CPU, cores | checkpoints, bytes per slot | heap, MiB | resident, MiB |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
	for _, m := range r.members {
		cpu, resident, heap = cpu+m.cpu, resident+m.resident, heap+m.heap
		fmt.Fprintf(w, "| %s | %d | %d | %.0f %% | %d | %.1f s | %.2f | %.0f | %.0f | %.0f |\n", m.name, m.groups, m.rules, 100*float64(m.cost)/float64(cost), m.evaluated, m.lag.Seconds(),
			m.cpu/r.took.Seconds(), m.checkpoints/float64(m.evaluated), m.heap/(1<<20), m.resident/(1<<20))
	}
	evaluations := float64(r.evaluated) * rules / float64(o.groups)
	fmt.Fprintf(w, "\n| all members | |\n|---|---|\n")
	fmt.Fprintf(w, "| slots evaluated, of those due in the time | %d of %.0f |\n", r.evaluated, expected)
	fmt.Fprintf(w, "| slots missed | %d |\n", r.missed)
	fmt.Fprintf(w, "| fragments asked for later than an interval after their slot | %d of %d |\n", r.late, r.fragments)
	fmt.Fprintf(w, "| requests for fragments, for writes | %d, %d |\n", r.batches, r.writes)
	fmt.Fprintf(w, "| CPU per rule evaluation | %.0f µs |\n", cpu/evaluations*1e6)
	fmt.Fprintf(w, "| CPU per group slot | %.0f µs |\n", cpu/float64(r.evaluated)*1e6)
	fmt.Fprintf(w, "| heap per rule and member that has it loaded | %.2f KiB |\n", heap/rules/float64(len(r.members))/1024)
	fmt.Fprintf(w, "| resident memory per rule and member that has it loaded | %.2f KiB |\n", resident/rules/float64(len(r.members))/1024)
	fmt.Fprintf(w, "| heap per group and member | %.1f KiB |\n", heap/float64(o.groups*len(r.members))/1024)
}
