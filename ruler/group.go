package ruler

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
)

// group is a rule group that this member evaluates. Its definition never
// changes; an edit makes a new group that adopts the states of the old one.
// A live slot and a repeat may run at one time, for different rules.
type group struct {
	def rule.Group
	// order has the stages of the rules and the earlier ones that each may read,
	// see rule.Stages. It is found when it is first needed.
	order func() (stages, reads [][]int)
	ids   []string // of the rules, unique in the group

	recent recent // what it has written

	mu       sync.Mutex
	rules    []ruleState // parallel to def.Rules
	encoded  []byte      // of all rules; nil if any has changed since
	lastSlot time.Time
	progress Progress      // of the live slot
	duration time.Duration // of the last live slot
	// work is what a slot costs this member, in series that it handles, averaged
	// over some slots; 0 before the first.
	work float64
}

// ruleState is what one rule remembers from slot to slot.
type ruleState struct {
	// series are those that the last acknowledged slot recorded: the ones
	// that are not recorded again get a staleness marker.
	series []labels.Labels
	alerts alert.State
	// unwritten are samples of an alerting rule that wait for a backend.
	unwritten unwritten
	// encoded is all of it as they move to another member; nil if they have changed.
	encoded []byte

	err        error // of the last evaluation
	warnings   []string
	duration   time.Duration
	evaluation time.Time
}

func (s *ruleState) setSeries(series []labels.Labels) {
	if !slices.EqualFunc(s.series, series, labels.Equal) {
		s.series, s.encoded = series, nil
	}
}

func (s *ruleState) setAlerts(alerts alert.State) {
	if !s.alerts.IsEmpty() || !alerts.IsEmpty() {
		s.alerts, s.encoded = alerts, nil
	}
}

func (s *ruleState) setUnwritten(u unwritten) {
	if len(s.unwritten)+len(u) > 0 {
		s.unwritten, s.encoded = u, nil
	}
}

func newGroup(def rule.Group, resend time.Duration) *group {
	rules := make([]alert.Rule, len(def.Rules))
	for i, r := range def.Rules {
		rules[i] = alertRule(def, r, resend)
		rules[i].Name = r.Record + rules[i].Name
	}
	return &group{
		def:   def,
		order: sync.OnceValues(func() (stages, reads [][]int) { return rule.Stages(def) }),
		ids:   alert.Identities(rules),
		rules: make([]ruleState, len(def.Rules)),
	}
}

// alertRule is the rule as the state machine takes it.
func alertRule(g rule.Group, r rule.Rule, resend time.Duration) alert.Rule {
	return alert.Rule{
		Name:          r.Alert,
		For:           r.For,
		KeepFiringFor: r.KeepFiringFor,
		Interval:      g.Interval,
		QueryOffset:   g.QueryOffset,
		ResendDelay:   resend,
		Limit:         g.Limit,
		Labels:        r.Labels,
		Annotations:   r.Annotations,
		Enforced:      g.Scope,
	}
}

// scheduled is the group as the schedule sees it.
func (g *group) scheduled() schedule.Group {
	s := schedule.Group{Key: g.def.Key, Interval: g.def.Interval, Phase: g.def.Phase(), Recording: make([]bool, len(g.def.Rules))}
	for i, r := range g.def.Rules {
		s.Recording[i] = r.Record != ""
	}
	return s
}

// adopt takes over the state of each rule that the old definition has too.
func (g *group) adopt(old *group) {
	old.mu.Lock()
	defer old.mu.Unlock()
	byID := map[string]int{}
	for i, id := range g.ids {
		byID[id] = i
	}
	for i, id := range old.ids {
		if n, ok := byID[id]; ok {
			g.rules[n] = old.rules[i]
		}
	}
	g.recent.adopt(&old.recent)
	g.lastSlot, g.duration, g.work = old.lastSlot, old.duration, old.work
}

// query is what a rule asks for.
func (g *group) query(i int) Query {
	return Query{Name: g.def.Key + "/" + g.def.Rules[i].Name(), Expr: g.def.Rules[i].Expr, Scope: g.def.Scope, Partial: g.def.Partial}
}

// get returns a copy of a rule's state.
func (g *group) get(i int) ruleState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rules[i]
}

// update changes a rule's state.
func (g *group) update(i int, change func(*ruleState)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(&g.rules[i])
	if g.rules[i].encoded == nil {
		g.encoded = nil
	}
}

// unwritten tells whether samples of alerts wait for a backend.
func (g *group) unwritten() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.rules, func(s ruleState) bool { return len(s.unwritten) > 0 })
}
