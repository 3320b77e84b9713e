// Package status makes the status of resources of what collectors and
// rule-evaluators say: answers in, status out.
//
// Answers are added one by one and not kept, and of targets and rules that fail
// only the first few are shown, so that neither memory nor the size of a status
// grows with their number. The package reads no clock and does no I/O; who is
// asked, and when a status is written, is up to operator/controller.
package status

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

const (
	// maxSamples is how many targets of a group, or rules, are shown.
	maxSamples = 5
	// maxGroups is how many different errors of an endpoint are shown.
	maxGroups = 10
	// maxReasons is how many reasons for dropped targets are shown.
	maxReasons = 10
	// maxTextBytes bounds an error.
	maxTextBytes = 1 << 10
)

// Summary is what a collector says of its targets.
type Summary struct {
	Pools        []Pool        `json:"pools"`
	ConfigErrors []ConfigError `json:"configErrors"`
}

// Pool is about the targets of one endpoint on one node.
type Pool struct {
	Name      string        `json:"name"`
	Active    int64         `json:"active"`
	Unhealthy int64         `json:"unhealthy"`
	Dropped   []Dropped     `json:"dropped"`
	Groups    []TargetGroup `json:"groups"`
}

// Dropped counts discovered targets that are not scraped.
type Dropped struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

// TargetGroup are targets whose last scrape went alike.
type TargetGroup struct {
	LastError string   `json:"lastError"`
	Count     int32    `json:"count"`
	Targets   []Target `json:"targets"`
}

// Target is one of a group.
type Target struct {
	Labels                    map[string]string `json:"labels"`
	Health                    string            `json:"health"`
	LastScrapeDurationSeconds string            `json:"lastScrapeDurationSeconds"`
}

// ConfigError says why a collector refuses the configuration of a pool.
type ConfigError struct {
	Pool  string `json:"pool"`
	Error string `json:"error"`
}

// Targets gathers the answers of all collectors.
type Targets struct {
	pools            map[string]*endpoint
	answered, failed int
}

type endpoint struct {
	active, unhealthy int64
	dropped           map[string]int64
	groups            map[string]*group
	configError       string
}

// group has targets with the same last error.
type group struct {
	count   int32
	targets []Target
}

// NewTargets returns the status before anybody has answered.
func NewTargets() *Targets { return &Targets{pools: map[string]*endpoint{}} }

// Fail counts a collector that did not answer.
func (t *Targets) Fail() { t.failed++ }

// Add adds the answer of a collector.
func (t *Targets) Add(s Summary) {
	t.answered++
	for _, p := range s.Pools {
		t.endpoint(p.Name).add(p)
	}
	for _, e := range s.ConfigErrors {
		// Collectors agree, or one of them speaks for all.
		at := t.endpoint(e.Pool)
		if at.configError == "" || e.Error < at.configError {
			at.configError = shortened(e.Error)
		}
	}
}

func (t *Targets) endpoint(pool string) *endpoint {
	e, ok := t.pools[pool]
	if !ok {
		e = &endpoint{dropped: map[string]int64{}, groups: map[string]*group{}}
		t.pools[pool] = e
	}
	return e
}

func (e *endpoint) add(p Pool) {
	e.active += p.Active
	e.unhealthy += p.Unhealthy
	for _, d := range p.Dropped {
		e.dropped[d.Reason] += d.Count
	}
	for _, g := range p.Groups {
		e.addGroup(g)
	}
}

func (e *endpoint) addGroup(in TargetGroup) {
	text := shortened(in.LastError)
	g, ok := e.groups[text]
	if !ok {
		g = &group{}
		e.groups[text] = g
	}
	g.count += in.Count
	g.targets = append(g.targets, in.Targets...)
	slices.SortStableFunc(g.targets, func(a, b Target) int {
		return cmp.Or(strings.Compare(a.Labels["instance"], b.Labels["instance"]), strings.Compare(a.Labels["pod"], b.Labels["pod"]))
	})
	g.targets = slices.Clip(g.targets[:min(len(g.targets), maxSamples)])
}

// Fraction is the part of collectors that answered, "1" if there are none.
func (t *Targets) Fraction() string {
	all := t.answered + t.failed
	if all == 0 {
		return "1"
	}
	return strconv.FormatFloat(float64(t.answered)/float64(all), 'f', -1, 64)
}

// ByResource are the endpoints of each resource, by its key, sorted by name.
// Pools that belong to no resource, as those of kubelets, are left out.
func (t *Targets) ByResource(now metav1.Time) map[string][]v1.ScrapeEndpointStatus {
	out := map[string][]v1.ScrapeEndpointStatus{}
	for _, name := range slices.Sorted(maps.Keys(t.pools)) {
		if key, ok := resourceOf(name); ok {
			out[key] = append(out[key], t.pools[name].status(name, t.Fraction(), now))
		}
	}
	return out
}

// resourceOf is the key of the resource that a pool is of: what follows it is
// the endpoint, which may have slashes itself.
func resourceOf(pool string) (string, bool) {
	kind, _, _ := strings.Cut(pool, "/")
	segments := 0
	switch kind {
	case "PodMonitoring":
		segments = 3
	case "ClusterPodMonitoring", "ClusterNodeMonitoring":
		segments = 2
	default:
		return "", false
	}
	parts := strings.SplitN(pool, "/", segments+1)
	if len(parts) < segments {
		return "", false
	}
	return strings.Join(parts[:segments], "/"), true
}

func (e *endpoint) status(name, fraction string, now metav1.Time) v1.ScrapeEndpointStatus {
	return v1.ScrapeEndpointStatus{
		Name: name, ActiveTargets: e.active, UnhealthyTargets: e.unhealthy, LastUpdateTime: now,
		SampleGroups: e.sampleGroups(), DroppedTargets: e.droppedTargets(),
		ConfigurationError: e.configError, CollectorsFraction: fraction,
	}
}

// sampleGroups are sorted by error; the targets without one come last, and are
// never left out.
func (e *endpoint) sampleGroups() []v1.SampleGroup {
	errors := slices.Sorted(maps.Keys(e.groups))
	if len(errors) > 0 && errors[0] == "" {
		errors = append(errors[1:], "")
	}
	if extra := len(errors) - maxGroups; extra > 0 {
		errors = slices.Delete(errors, maxGroups-1, maxGroups-1+extra)
	}
	var out []v1.SampleGroup
	for _, text := range errors {
		g := e.groups[text]
		out = append(out, v1.SampleGroup{SampleTargets: sampleTargets(text, g.targets), Count: &g.count})
	}
	return out
}

func sampleTargets(lastError string, in []Target) []v1.SampleTarget {
	out := make([]v1.SampleTarget, len(in))
	for i, t := range in {
		out[i] = v1.SampleTarget{Labels: t.Labels, LastScrapeDurationSeconds: t.LastScrapeDurationSeconds, Health: t.Health}
		if lastError != "" || t.Health != "up" {
			out[i].LastError = &lastError
		}
	}
	return out
}

func (e *endpoint) droppedTargets() []v1.DroppedTargets {
	var out []v1.DroppedTargets
	for _, reason := range slices.Sorted(maps.Keys(e.dropped)) {
		out = append(out, v1.DroppedTargets{Reason: reason, Count: e.dropped[reason]})
	}
	slices.SortStableFunc(out, func(a, b v1.DroppedTargets) int { return cmp.Compare(b.Count, a.Count) })
	return out[:min(len(out), maxReasons)]
}

// SameTargets says whether two states of endpoints differ in nothing but times:
// when it was, and how long scrapes took.
func SameTargets(a, b []v1.ScrapeEndpointStatus) bool {
	return slices.EqualFunc(a, b, func(a, b v1.ScrapeEndpointStatus) bool {
		return a.Name == b.Name && a.ActiveTargets == b.ActiveTargets && a.UnhealthyTargets == b.UnhealthyTargets &&
			a.ConfigurationError == b.ConfigurationError && a.CollectorsFraction == b.CollectorsFraction &&
			slices.Equal(a.DroppedTargets, b.DroppedTargets) && slices.EqualFunc(a.SampleGroups, b.SampleGroups, sameGroup)
	})
}

func sameGroup(a, b v1.SampleGroup) bool {
	return *cmp.Or(a.Count, new(int32)) == *cmp.Or(b.Count, new(int32)) && slices.EqualFunc(a.SampleTargets, b.SampleTargets, func(a, b v1.SampleTarget) bool {
		return a.Health == b.Health && maps.Equal(a.Labels, b.Labels) && *cmp.Or(a.LastError, new(string)) == *cmp.Or(b.LastError, new(string))
	})
}

func shortened(text string) string {
	if len(text) <= maxTextBytes {
		return text
	}
	return strings.ToValidUTF8(text[:maxTextBytes], "") + "..."
}
