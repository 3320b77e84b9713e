package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/tocsin-rules/tocsin/bench/chaos/fleet"
	"github.com/tocsin-rules/tocsin/bench/chaos/signal"
)

// scenario is one kind of trouble.
type scenario struct {
	setup

	// run lets it happen; rounds scales how often.
	run func(ctx context.Context, t *trial, o options) error
}

func scenarios() []scenario {
	return []scenario{
		{setup{name: "kill-3", members: 3}, kills},
		{setup{name: "kill-5", members: 5}, kills},
		{setup{name: "rolling-3", members: 3}, rollingRestarts},
		{setup{name: "rolling-5", members: 5}, rollingRestarts},
		{setup{name: "scale", members: 5, initial: 1}, scaling},
		{setup{name: "partition", members: 3, hosts: true}, partitions},
		{setup{name: "backend", members: 3}, backendOutages},
		{setup{name: "stop", members: 3}, stoppedMembers},
		{setup{name: "soak", members: 3}, soak},
	}
}

// kills ends random members without a word, one after the other.
func kills(ctx context.Context, t *trial, o options) error {
	for range o.kills {
		i := t.anyMember()
		if err := t.killMember(ctx, i); err != nil {
			return err
		}
		if err := errors.Join(t.subject.StartMembers(ctx, i), t.settled(ctx, t.subject)); err != nil {
			return err
		}
		if err := pause(ctx, time.Duration(t.random.IntN(10))*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) anyMember() int {
	running := t.subject.Members()
	return running[t.random.IntN(len(running))]
}

func (t *trial) killMember(ctx context.Context, i int) error {
	m, err := t.moved(ctx, memberName(i), func() error {
		t.subject.Member(i).Kill()
		return nil
	})
	t.result.faults++
	t.result.takeovers = append(t.result.takeovers, m.since...)
	t.say("%s: killed member %d, %d groups taken over within %s", t.result.name, i, len(m.since), longest(m.since))
	return err
}

func (t *trial) stopMember(ctx context.Context, i int) error {
	stopped := make(chan error, 1)
	m, err := t.moved(ctx, memberName(i), func() error {
		go func() { stopped <- t.subject.Member(i).Stop() }()
		return nil
	})
	t.result.faults++
	t.result.handovers = append(t.result.handovers, m.late...)
	t.say("%s: member %d left, %d groups evaluated elsewhere, no slot later than %s", t.result.name, i, len(m.late), longest(m.late))
	return errors.Join(err, <-stopped)
}

func memberName(i int) string { return fmt.Sprintf("member-%d", i) }

func longest(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.Max(times).Round(time.Millisecond)
}

// rollingRestarts restarts all members in order, one at a time, as a rollout
// does.
func rollingRestarts(ctx context.Context, t *trial, o options) error {
	for range o.rollouts {
		for i := range t.result.members {
			if err := t.stopMember(ctx, i); err != nil {
				return err
			}
			if err := errors.Join(t.subject.StartMembers(ctx, i), t.settled(ctx, t.subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

// scaling grows the cluster member by member, and shrinks it again.
func scaling(ctx context.Context, t *trial, _ options) error {
	for i := 1; i < t.result.members; i++ {
		t.result.faults++
		if err := errors.Join(t.subject.StartMembers(ctx, i), t.settled(ctx, t.subject)); err != nil {
			return err
		}
	}
	for i := t.result.members - 1; i > 0; i-- {
		if err := t.stopMember(ctx, i); err != nil {
			return err
		}
	}
	return t.settled(ctx, t.subject)
}

// partitions cuts one member off from the others, in both directions and in
// one only; all reach the backends all the time.
func partitions(ctx context.Context, t *trial, o options) error {
	for round := range o.partitions {
		alone := round % t.result.members
		for other := range t.result.members {
			if other == alone {
				continue
			}
			err := t.hosts.Cut(alone, other)
			if round%2 == 0 {
				err = errors.Join(err, t.hosts.Cut(other, alone))
			}
			if err != nil {
				return err
			}
		}
		t.result.faults++
		t.say("%s: member %d is cut off", t.result.name, alone)
		if err := pause(ctx, 30*time.Second); err != nil {
			return err
		}
		t.hosts.Heal()
		if err := t.settled(ctx, t.subject); err != nil {
			return err
		}
		t.say("%s: healed", t.result.name)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backendOutages takes one backend after the other away for a time in which
// many slots pass, and lets another one hang.
func backendOutages(ctx context.Context, t *trial, o options) error {
	for _, cluster := range append(signal.Clusters(), "") {
		b := t.subject.Backends[cluster]
		b.Kill()
		t.result.faults++
		t.say("%s: %s is away for %s", t.result.name, b.Name, o.outage)
		if err := pause(ctx, o.outage); err != nil {
			return err
		}
		if err := errors.Join(b.Start(), b.WaitReady(ctx), t.settled(ctx, t.subject)); err != nil {
			return err
		}
		if err := t.hang(ctx, b, o.outage/3); err != nil {
			return err
		}
	}
	return nil
}

// hang stops a process for a while without ending it.
func (t *trial) hang(ctx context.Context, p *fleet.Process, d time.Duration) error {
	t.result.faults++
	t.say("%s: %s hangs for %s", t.result.name, p.Name, d)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(pause(ctx, d), p.Signal(syscall.SIGCONT))
}

// stoppedMembers stops members for so long that the others think them dead.
func stoppedMembers(ctx context.Context, t *trial, o options) error {
	for range o.stops {
		p := t.subject.Member(t.anyMember())
		if err := errors.Join(t.hang(ctx, p, 30*time.Second), t.settled(ctx, t.subject)); err != nil {
			return err
		}
	}
	return nil
}

// soak lets random things happen for a long time: one after the other to
// members, and beside that to what they depend on.
func soak(ctx context.Context, t *trial, o options) error {
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	var lanes sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, lane := range soakLanes(o) {
		lanes.Go(func() {
			for f := range lane {
				if pause(ctx, f.after) != nil {
					return
				}
				err := t.inflict(ctx, f)
				mu.Lock()
				t.result.faults++
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	lanes.Wait()
	return failed
}

// inflict does one fault and undoes it, also when time is up meanwhile.
func (t *trial) inflict(ctx context.Context, f fault) error {
	t.say("%s: %s", t.result.name, f)
	victims := t.victims(f)
	var errs []error
	for _, p := range victims {
		errs = append(errs, begin(p, f.how))
	}
	_ = pause(ctx, f.lasts)
	for _, p := range victims {
		errs = append(errs, undo(context.WithoutCancel(ctx), p, f.how))
	}
	return errors.Join(errs...)
}

func begin(p *fleet.Process, h how) error {
	switch h {
	case hang:
		return p.Signal(syscall.SIGSTOP)
	case terminate:
		return p.Stop()
	default:
		p.Kill()
		return nil
	}
}

func undo(ctx context.Context, p *fleet.Process, h how) error {
	if h == hang {
		return p.Signal(syscall.SIGCONT)
	}
	if err := p.Start(); err != nil {
		return err
	}
	return p.WaitReady(ctx)
}

func (t *trial) victims(f fault) []*fleet.Process {
	switch {
	case f.what == aBackend:
		return []*fleet.Process{t.subject.Backends[append(signal.Clusters(), "")[f.index]]}
	case f.what == anAlertmanager && f.index == all:
		return t.subject.Alertmanagers
	case f.what == anAlertmanager:
		return t.subject.Alertmanagers[f.index : f.index+1]
	default:
		return []*fleet.Process{t.subject.Member(f.index)}
	}
}
