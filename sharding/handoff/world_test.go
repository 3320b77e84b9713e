package handoff

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-rules/tocsin/sharding"
)

// epoch is the time at which every script and simulation starts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world wires the cores of several members together: it is their shells,
// their network and their backend. Messages wait in a queue until they are
// due; everything else happens at once.
type world struct {
	now   time.Time
	nodes map[string]*node
	queue []message
	rpcs  map[uint64]Claim
	calls uint64
	// cut holds pairs of members between which nothing passes.
	cut map[[2]string]bool
	// backend has the last slot written of each group.
	backend     map[string]time.Time
	backendDown bool
	// backendPartly means that part of the backend does not answer.
	backendPartly bool
	// delay says how long a message between two members takes; lost ones say
	// false.
	delay func(from, to string) (time.Duration, bool)
	// started is told of every Start before it is performed.
	started func(name string, s Start)
	trace   func(format string, args ...any)
}

// node is a member's shell.
type node struct {
	core *Core
	// runs has the last committed slot of each group that is evaluated.
	runs map[string]GroupState
	// held are groups whose slot in progress doesn't end.
	held    map[string]bool
	stops   map[string]bool
	drained bool
}

type message struct {
	at time.Time
	to string
	// from is empty for what a shell tells its own core.
	from string
	ev   Event
	rpc  uint64
}

func newWorld() *world {
	return &world{
		now:     epoch,
		nodes:   map[string]*node{},
		rpcs:    map[uint64]Claim{},
		cut:     map[[2]string]bool{},
		backend: map[string]time.Time{},
		delay:   func(string, string) (time.Duration, bool) { return 0, true },
		started: func(string, Start) {},
		trace:   func(string, ...any) {},
	}
}

func (w *world) names() []string { return slices.Sorted(maps.Keys(w.nodes)) }

func (w *world) boot(name string) {
	w.nodes[name] = &node{
		core:  New(DefaultConfig(name)),
		runs:  map[string]GroupState{},
		held:  map[string]bool{},
		stops: map[string]bool{},
	}
}

func (w *world) crash(name string) {
	delete(w.nodes, name)
	w.queue = slices.DeleteFunc(w.queue, func(m message) bool { return m.to == name && m.from == "" })
}

func (w *world) isCut(a, b string) bool { return w.cut[[2]string{min(a, b), max(a, b)}] }

// step gives an event to a member and performs what comes of it.
func (w *world) step(name string, ev Event) {
	n, ok := w.nodes[name]
	if !ok {
		return
	}
	ready := n.core.Step(w.now, ev)
	if _, isTick := ev.(Tick); !isTick || len(ready) > 0 {
		w.trace("%s: %s\n", name, ev)
	}
	for _, a := range ready {
		w.trace("   %s\n", a)
		w.perform(name, n, a)
	}
}

func (w *world) perform(name string, n *node, a Action) {
	switch a := a.(type) {
	case Start:
		w.started(name, a)
		n.runs[a.Key] = a.State
	case Stop:
		n.stops[a.Key] = true
		if !n.held[a.Key] {
			w.finish(name, n, a.Key)
		}
	case Claim:
		w.calls++
		w.rpcs[w.calls] = a
		w.send(message{from: name, to: a.To, ev: ClaimReceived{ID: w.calls, From: name, Keys: a.Keys}, rpc: w.calls})
	case Answer:
		claim := w.rpcs[a.ID]
		w.send(message{from: name, to: w.claimant(a.ID), ev: ClaimAnswered{From: name, Keys: claim.Keys, States: a.States}, rpc: a.ID})
	case Checkpoint:
		w.send(message{from: name, to: a.To, ev: CheckpointReceived{From: name, States: a.States}})
	case Recover:
		w.post(name, w.ask(a))
	case Drained:
		n.drained = true
	}
}

// claimants are encoded in the ID's Claim by its receiver and caller.
func (w *world) claimant(id uint64) string {
	for _, m := range w.queue {
		if m.rpc == id && m.from == "" {
			return m.to
		}
	}
	return ""
}

// send puts a message on its way. A claim also gets a deadline, at which its
// caller is told that it failed, unless it was answered.
func (w *world) send(m message) {
	if _, isClaim := m.ev.(ClaimReceived); isClaim {
		claim := w.rpcs[m.rpc]
		w.queue = append(w.queue, message{
			at: w.now.Add(rpcDeadline), to: m.from, rpc: m.rpc,
			ev: ClaimFailed{From: claim.To, Keys: claim.Keys, Err: "no answer"},
		})
	}
	d, arrives := w.delay(m.from, m.to)
	if !arrives || w.isCut(m.from, m.to) || w.nodes[m.to] == nil {
		w.trace("   (lost on the way to %s)\n", m.to)
		return
	}
	m.at = w.now.Add(d)
	w.queue = append(w.queue, m)
}

const rpcDeadline = 3 * time.Second

// post tells a shell's own core something.
func (w *world) post(name string, ev Event) {
	w.queue = append(w.queue, message{at: w.now, to: name, ev: ev})
}

// finish ends the last slot of a group that stops.
func (w *world) finish(name string, n *node, key string) {
	state, ok := n.runs[key]
	if !ok || !n.stops[key] {
		return
	}
	delete(n.runs, key)
	delete(n.stops, key)
	w.post(name, Stopped{State: state})
}

func (w *world) ask(a Recover) Event {
	if w.backendDown {
		return RecoverFailed{Keys: a.Keys, Err: "backend down"}
	}
	var found []GroupState
	for _, key := range a.Keys {
		if slot, ok := w.backend[key]; ok {
			found = append(found, GroupState{Key: key, CommittedSlot: slot})
		}
	}
	return Recovered{Keys: a.Keys, States: found, Partial: w.backendPartly}
}

// commit ends a slot of groups that a member runs.
func (w *world) commit(name string, slot time.Time, keys []string) {
	n := w.nodes[name]
	var done []GroupState
	for _, key := range keys {
		if state, ok := n.runs[key]; ok && slot.After(state.CommittedSlot) {
			n.runs[key] = GroupState{Key: key, CommittedSlot: slot, Data: []byte(name), Version: 1}
			done = append(done, n.runs[key])
			w.backend[key] = slot
		}
	}
	if len(done) > 0 {
		w.step(name, Committed{States: done})
	}
}

// deliver delivers what is due, in order of time, until nothing is.
func (w *world) deliver() {
	for {
		next := -1
		for i, m := range w.queue {
			if !m.at.After(w.now) && (next < 0 || m.at.Before(w.queue[next].at)) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		m := w.queue[next]
		w.queue = slices.Delete(w.queue, next, next+1)
		w.arrive(m)
	}
}

func (w *world) arrive(m message) {
	if m.from != "" && w.isCut(m.from, m.to) {
		return
	}
	if _, answered := m.ev.(ClaimAnswered); answered {
		if w.claimant(m.rpc) != m.to {
			return // too late, its deadline has passed
		}
		w.queue = slices.DeleteFunc(w.queue, func(o message) bool { return o.rpc == m.rpc && o.from == "" })
	}
	w.step(m.to, m.ev)
}

// run lets time pass with a tick of all members every interval.
func (w *world) run(d, interval time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(interval)
		w.deliver()
		for _, name := range w.names() {
			w.step(name, Tick{})
			w.deliver()
		}
	}
}

// runners are the members that evaluate a group, sorted.
func (w *world) runners(key string) []string {
	var names []string
	for _, name := range w.names() {
		if _, ok := w.nodes[name].runs[key]; ok {
			names = append(names, name)
		}
	}
	return names
}

func (w *world) String() string {
	var b strings.Builder
	for _, name := range w.names() {
		fmt.Fprintf(&b, "%s:\n", name)
		for line := range strings.Lines(w.nodes[name].core.String()) {
			b.WriteString("   " + line)
		}
	}
	return b.String()
}

// view makes a view of words like "a" and "b:leaving".
func view(words []string) (sharding.View, error) {
	var members []sharding.Member
	for _, word := range words {
		name, state, _ := strings.Cut(word, ":")
		m := sharding.Member{Name: name, State: sharding.Ready, GRPCAddress: name}
		switch state {
		case "", "ready":
		case "joining":
			m.State = sharding.Joining
		case "leaving":
			m.State = sharding.Leaving
		default:
			return sharding.View{}, fmt.Errorf("unknown state %q", state)
		}
		members = append(members, m)
	}
	return sharding.NewView(members), nil
}
