package app

import (
	"errors"
	"sync"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/source"
	"github.com/tocsin-rules/tocsin/web"
)

// memberState is what /-/ready and the cluster are told of this member.
type memberState struct {
	mu     sync.Mutex
	loaded bool
	groups []rule.Group
	files  []source.FileError
	config error // of the last reload
	ready  bool
	left   bool
	why    error
}

func (s *memberState) rulesLoaded(loaded source.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded, s.groups, s.files = true, loaded.Groups, loaded.Errors
}

// configured notes how reading the configuration ended.
func (s *memberState) configured(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = err
}

// loadedGroups are those of all rule files, sorted by key.
func (s *memberState) loadedGroups() []rule.Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups
}

// fileErrors are the faults of rule files, and that of the configuration file.
func (s *memberState) fileErrors(configFile string) []web.FileError {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := make([]web.FileError, len(s.files))
	for i, e := range s.files {
		errs[i] = web.FileError{File: e.File, Error: e.Err.Error()}
	}
	if s.config != nil {
		errs = append(errs, web.FileError{File: configFile, Error: s.config.Error()})
	}
	return errs
}

func (s *memberState) hasRules() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loaded
}

// probed notes the outcome of an attempt to become ready, and whether there is
// no need for another one. It announces that the member is ready, unless it is
// leaving already.
func (s *memberState) probed(err error, announce func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return true
	}
	s.ready, s.why = err == nil, err
	if s.ready {
		announce()
	}
	return s.ready
}

// leave announces that the member is leaving, and tells whether it was not
// before.
func (s *memberState) leave(announce func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return false
	}
	s.left = true
	announce()
	return true
}

func (s *memberState) isLeaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
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
func (a *app) status() web.MemberStatus {
	counts := a.ruler.Counts()
	s := web.MemberStatus{
		Member:          a.opts.Name,
		SlotsEvaluated:  counts.Evaluated,
		SlotsMissed:     counts.Missed,
		SlotsBackfilled: counts.Repeated,
		LagSeconds:      counts.Lag.Seconds(),
		RuleErrors:      []web.RuleError{},
		FileErrors:      a.state.fileErrors(a.opts.ConfigFile),
	}
	err := a.ready()
	if s.Ready = err == nil; !s.Ready {
		s.NotReady = err.Error()
	}
	s.Cost = a.ownLoad().Cost
	for _, m := range a.gossip.View().Members() {
		s.Members = append(s.Members, m.Name)
	}
	for _, g := range a.ruler.Status() {
		s.Groups++
		s.Rules += len(g.Rules)
		for i, r := range g.Rules {
			s.Firing += r.Alerts.Count(alert.Firing)
			s.Pending += r.Alerts.Count(alert.Pending)
			if r.Err != nil {
				s.RuleErrors = append(s.RuleErrors, web.RuleError{Group: g.Group.Key, Rule: g.Group.Rules[i].Name(), Error: r.Err.Error()})
			}
		}
	}
	return s
}
