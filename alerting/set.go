package alerting

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v2"
)

// set is the Alertmanagers of one entry of the configuration. The Sender's lock
// guards it.
type set struct {
	route         atomic.Pointer[route]
	alertmanagers map[string]*alertmanager
	dropped       []*url.URL
	// backlog waits while there is no Alertmanager.
	backlog *queue
	logger  *slog.Logger
}

// routeKey names an entry of the configuration by its content, so that entries
// which a reload leaves alone, or only moves, stay what they are. Equal entries
// are numbered.
func routeKey(cfg *config.AlertmanagerConfig, taken map[string]*route) (string, error) {
	content, err := yaml.Marshal(cfg)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		key := fmt.Sprintf("%x-%d", sha256.Sum256(content), n)
		if _, ok := taken[key]; !ok {
			return key, nil
		}
	}
}

// put queues notifications for all Alertmanagers of the set.
func (s *set) put(items []*item) {
	if len(s.alertmanagers) == 0 {
		if dropped := s.backlog.put(items); dropped > 0 {
			s.logger.Warn("no alertmanager is discovered and too many notifications wait for one, the oldest are dropped",
				"dropped", dropped, "capacity", s.backlog.capacity)
		}
		return
	}
	for _, a := range s.alertmanagers {
		a.put(items)
	}
}

// replaceSets makes the sets those of a new configuration. What the
// Alertmanagers of an entry that is gone did not get is left to the new entries,
// which may well be the same Alertmanagers in other words.
func (s *Sender) replaceSets(routes map[string]*route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var undelivered []*item
	for key, set := range s.sets {
		if _, stays := routes[key]; !stays {
			undelivered = append(undelivered, s.dissolve(set)...)
			delete(s.sets, key)
		}
	}
	for key, r := range routes {
		if set, ok := s.sets[key]; ok {
			set.route.Swap(r).client.CloseIdleConnections()
			continue
		}
		set := &set{alertmanagers: map[string]*alertmanager{}, backlog: newQueue(s.cfg.QueueCapacity), logger: s.logger}
		set.route.Store(r)
		set.put(undelivered)
		s.sets[key] = set
	}
}

// dissolve ends all deliveries of a set and returns what was not delivered.
func (s *Sender) dissolve(set *set) []*item {
	undelivered := set.backlog.take()
	for _, a := range set.alertmanagers {
		undelivered = append(undelivered, s.dismiss(set, a)...)
	}
	set.route.Load().client.CloseIdleConnections()
	return undelivered
}

// dismiss ends the deliveries to one Alertmanager.
func (s *Sender) dismiss(set *set, a *alertmanager) []*item {
	a.cancel()
	delete(set.alertmanagers, a.label)
	s.metrics.forget(a.label)
	return a.queue.take()
}

// discover makes the Alertmanagers of each set those that were discovered.
// Results for entries that a reload has just removed are ignored.
func (s *Sender) discover(groups map[string][]*targetgroup.Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, set := range s.sets {
		if found, ok := groups[key]; ok && s.launch != nil {
			s.discoverSet(set, found)
		}
	}
}

// discoverSet leaves what an Alertmanager that is gone did not get to those that
// are new: it may have come back under another address.
func (s *Sender) discoverSet(set *set, groups []*targetgroup.Group) {
	active, dropped, errs := set.route.Load().alertmanagers(groups)
	for _, err := range errs {
		s.logger.Error("discovery of alertmanagers", "err", err)
	}
	set.dropped = dropped
	wanted := make(map[string]*url.URL, len(active))
	for _, u := range active {
		wanted[u.String()] = u
	}
	undelivered := set.backlog.take()
	for label, a := range set.alertmanagers {
		if _, stays := wanted[label]; !stays {
			undelivered = append(undelivered, s.dismiss(set, a)...)
		}
	}
	for label, u := range wanted {
		if _, known := set.alertmanagers[label]; !known {
			a := s.newAlertmanager(set, u)
			set.alertmanagers[label] = a
			a.put(undelivered)
			s.launch(a)
		}
	}
	if len(wanted) == 0 {
		set.put(undelivered)
	}
}

func (s *Sender) newAlertmanager(set *set, u *url.URL) *alertmanager {
	s.metrics.add(u.String())
	return &alertmanager{
		url:     u,
		label:   u.String(),
		queue:   newQueue(s.cfg.QueueCapacity),
		route:   &set.route,
		do:      s.do,
		metrics: s.metrics,
		logger:  s.logger,
	}
}
