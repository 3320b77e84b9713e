package app

import (
	"errors"
	"sync"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/source"
)

// memberState is what /-/ready and the cluster are told of this member.
type memberState struct {
	mu     sync.Mutex
	loaded bool
	ready  bool
	left   bool
	why    error
	files  []source.FileError
}

func (s *memberState) rulesLoaded(errs []source.FileError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.files = true, errs
}

func (s *memberState) fileErrors() []fileError {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]fileError, len(s.files))
	for i, e := range s.files {
		errs[i] = fileError{File: e.File, Error: e.Err.Error()}
	}
	return errs
}

func (s *memberState) hasRules() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded
}

// probed notes the outcome of an attempt to become ready, and whether the
// member is.
func (s *memberState) probed(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.why = err == nil, err
	return s.ready
}

func (s *memberState) leaving() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

// Ready is an error unless the member evaluates rules, or would if it owned
// some.
func (s *memberState) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.left:
		return errors.New("handing over to other members")
	case s.ready:
		return nil
	case s.why != nil:
		return s.why
	default:
		return errors.New("starting")
	}
}

// status is this member at a glance, at /api/v1/status/tocsin.
type status struct {
	Member          string      `json:"member"`
	Ready           bool        `json:"ready"`
	Members         []string    `json:"members"`
	Groups          int         `json:"groups"`
	Rules           int         `json:"rules"`
	SlotsEvaluated  uint64      `json:"slotsEvaluated"`
	SlotsMissed     uint64      `json:"slotsMissed"`
	SlotsBackfilled uint64      `json:"slotsBackfilled"`
	LagSeconds      float64     `json:"lagSeconds"`
	Firing          int         `json:"firing"`
	Pending         int         `json:"pending"`
	RuleErrors      []ruleError `json:"ruleErrors"`
	FileErrors      []fileError `json:"fileErrors"`
}

type ruleError struct {
	Group string `json:"group"`
	Rule  string `json:"rule"`
	Error string `json:"error"`
}

type fileError struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

func (a *app) status() any {
	counts := a.ruler.Counts()
	s := status{
		Member:          a.opts.Name,
		Ready:           a.state.Ready() == nil,
		SlotsEvaluated:  counts.Evaluated,
		SlotsMissed:     counts.Missed,
		SlotsBackfilled: counts.Repeated,
		LagSeconds:      counts.Lag.Seconds(),
		RuleErrors:      []ruleError{},
		FileErrors:      a.state.fileErrors(),
	}
	for _, m := range a.gossip.View().Members() {
		s.Members = append(s.Members, m.Name)
	}
	for _, g := range a.ruler.Status() {
		s.Groups++
		s.Rules += len(g.Rules)
		for i, r := range g.Rules {
			s.count(r.Alerts)
			if r.Err != nil {
				s.RuleErrors = append(s.RuleErrors, ruleError{Group: g.Group.Key, Rule: g.Group.Rules[i].Name(), Error: r.Err.Error()})
			}
		}
	}
	return s
}

func (s *status) count(alerts []alert.Alert) {
	for _, a := range alerts {
		switch a.Status {
		case alert.Firing:
			s.Firing++
		case alert.Pending:
			s.Pending++
		case alert.Inactive:
		}
	}
}
