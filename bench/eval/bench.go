package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// measurement is what the slots of one variant have used.
type measurement struct {
	scenario string
	rules    int
	kind     worker.Kind
	// store is what was asked, empty for the manager; backends is how many.
	store    worker.Kind
	backends int
	slots    int
	// evaluator and stores are CPU time and memory; the peak of several stores
	// is the sum of their peaks.
	evaluator, stores worker.Usage
	// up and down are bytes on the wire.
	up, down int64
	walls    []time.Duration
}

// run is a run of the benchmark.
type run struct {
	options
	dir      string
	data     map[dataset.Fleet]data
	progress io.Writer
	// want are the results of every slot, those of the first variant of the
	// scenario.
	want         [][]worker.Result
	measurements []measurement
}

// bench does everything, from the data to the report.
func bench(ctx context.Context, o options, progress io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "tocsin-eval-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &run{options: o, dir: dir, data: map[dataset.Fleet]data{}, progress: progress}
	for _, d := range []string{r.out, r.profiles} {
		if d == "" {
			continue
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	all, err := r.scenarioList()
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := r.scenario(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r.report(all)
}

// scenario measures every stage of a scenario.
func (r *run) scenario(ctx context.Context, s scenario) error {
	if _, ok := r.data[s.fleet]; !ok {
		d, err := writeData(ctx, filepath.Join(r.dir, fmt.Sprint(len(r.data))), s.fleet, r.slots, r.progress)
		if err != nil {
			return err
		}
		r.data[s.fleet] = d
	}
	r.want = nil
	for _, st := range s.stages {
		for _, k := range st.kinds {
			if len(r.want) > 0 && len(r.only) > 0 && !slices.Contains(r.only, string(k)) {
				continue
			}
			if err := r.variant(ctx, s, st, k); err != nil {
				return fmt.Errorf("%s: %s: %w", st.store, k, err)
			}
		}
	}
	return nil
}

// stage is stores that run at the same time and what asks them, one after the
// other.
type stage struct {
	store    worker.Kind
	backends int
	kinds    []worker.Kind
}

// stores are the setups of the stores of a stage.
func (d data) stores(s stage) (setups []worker.Setup) {
	switch {
	case s.backends == 1:
		setups = append(setups, worker.Setup{Kind: s.store, Dir: d.whole()})
	case s.backends > 1:
		for _, c := range dataset.Clusters() {
			setups = append(setups, worker.Setup{Kind: s.store, Dir: d.part(c), Cluster: c})
		}
	}
	return setups
}

// variant measures one kind of evaluator, with stores of its own, so that none
// finds caches or garbage of the one before it.
func (r *run) variant(ctx context.Context, s scenario, st stage, k worker.Kind) (err error) {
	m := measurement{scenario: s.name, rules: len(s.rules), kind: k, store: st.store, backends: st.backends, slots: r.slots}
	fmt.Fprintf(r.progress, "eval: %s: %s\n", s.name, m.name())
	f := &fleet{}
	defer func() { err = errors.Join(err, f.stop()) }()
	d := r.data[s.fleet]
	for _, setup := range d.stores(st) {
		setup.Profile = r.profile(m, "store"+setup.Cluster)
		if err := f.start(ctx, setup); err != nil {
			return err
		}
	}
	e, err := start(ctx, worker.Setup{
		Kind: k, Dir: d.whole(), Rules: s.rules, Endpoints: f.endpoints, Profile: r.profile(m, "evaluator"),
	})
	if err != nil {
		return err
	}
	err = r.measure(&m, s.rules, f, e)
	r.measurements = append(r.measurements, m)
	return errors.Join(err, e.stop())
}

// profile is the file for the profile of one process, if one is wanted.
func (r *run) profile(m measurement, process string) string {
	if r.profiles == "" {
		return ""
	}
	return filepath.Join(r.profiles, fmt.Sprintf("%s-%s-%s-%d-%s.pprof", m.scenario, m.kind, m.store, m.backends, process))
}

// measure evaluates one slot that does not count and then all others. Remote
// read is slow and keeps nothing from slot to slot: its first one is measured.
func (r *run) measure(m *measurement, rules []dataset.Rule, f *fleet, e *process) error {
	first := 1
	if m.kind == worker.RemoteRead {
		first, m.slots = 0, 1
	} else if err := r.slot(&measurement{}, rules, e, 0); err != nil {
		return err
	}
	up, down := f.bytes()
	if err := errors.Join(f.begin(), e.call("Begin", 0, new(int))); err != nil {
		return err
	}
	for i := range m.slots {
		if err := r.slot(m, rules, e, first+i); err != nil {
			return err
		}
		fmt.Fprintf(r.progress, "eval: %s: slot %d of %d in %s\n", m.name(), i+1, m.slots, m.walls[i].Round(time.Millisecond))
	}
	m.up, m.down = f.bytes()
	m.up, m.down = m.up-up, m.down-down
	stores, err := f.end()
	m.stores = stores
	return errors.Join(err, e.call("End", 0, new(worker.Usage)))
}

// slot evaluates one slot and compares the results.
func (r *run) slot(m *measurement, rules []dataset.Rule, e *process, i int) error {
	var s worker.Slot
	if err := e.call("Slot", slotAt(i), &s); err != nil {
		return err
	}
	m.walls = append(m.walls, s.Wall)
	m.evaluator = sum(m.evaluator, s.Usage)
	m.evaluator.Peak = max(m.evaluator.Peak, s.Usage.Peak)
	if i == len(r.want) {
		r.want = append(r.want, s.Results)
	}
	if err := compare(rules, r.want[i], s.Results); err != nil {
		return fmt.Errorf("slot %d: %w", i, err)
	}
	return nil
}

// sum adds all but peaks.
func sum(a, b worker.Usage) worker.Usage {
	a.CPU += b.CPU
	a.Objects += b.Objects
	a.Bytes += b.Bytes
	return a
}

// fleet is the running stores and the proxies in front of them.
type fleet struct {
	stores    []*process
	proxies   []*proxy
	endpoints []worker.Endpoint
}

func (f *fleet) start(ctx context.Context, s worker.Setup) error {
	p, err := start(ctx, s)
	if err != nil {
		return err
	}
	f.stores = append(f.stores, p)
	at := p.at
	base, err := url.Parse(at.HTTP)
	if err != nil {
		return err
	}
	if base.Host, err = f.proxy(base.Host); err != nil {
		return err
	}
	at.HTTP = base.String()
	if at.GRPC != "" {
		if at.GRPC, err = f.proxy(at.GRPC); err != nil {
			return err
		}
	}
	f.endpoints = append(f.endpoints, at)
	return nil
}

func (f *fleet) proxy(target string) (address string, err error) {
	p, err := startProxy(target)
	if err != nil {
		return "", err
	}
	f.proxies = append(f.proxies, p)
	return p.addr(), nil
}

func (f *fleet) bytes() (up, down int64) {
	for _, p := range f.proxies {
		up += p.up.Load()
		down += p.down.Load()
	}
	return up, down
}

func (f *fleet) begin() error {
	var errs []error
	for _, s := range f.stores {
		errs = append(errs, s.call("Begin", 0, new(int)))
	}
	return errors.Join(errs...)
}

func (f *fleet) end() (all worker.Usage, err error) {
	for _, s := range f.stores {
		var u worker.Usage
		err = errors.Join(err, s.call("End", 0, &u))
		all = sum(all, u)
		all.Peak += u.Peak
	}
	return all, err
}

func (f *fleet) stop() error {
	var errs []error
	for _, p := range f.proxies {
		errs = append(errs, p.stop())
	}
	for _, s := range f.stores {
		errs = append(errs, s.stop())
	}
	return errors.Join(errs...)
}
