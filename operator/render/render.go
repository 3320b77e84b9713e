// Package render turns custom resources into the configuration of collectors,
// rule-evaluators and Alertmanagers: resources in, bytes and errors out.
//
// Each resource renders alone, into a Piece, so that one at fault never
// concerns another and one change costs the rendering of one. Parts puts the
// pieces of many resources into ConfigMaps, in which they keep their places.
// What comes of the OperatorConfig is a Config. The same input gives the same
// bytes, and what is returned was accepted by the loader of the program that
// reads it.
//
// The package reads no clock, does no I/O, knows no client, and never sees the
// content of a Secret, but for that of the Alertmanager's configuration: it
// only says which keys are needed. When to render, and to write, is up to
// operator/controller. Everything but Parts is safe for concurrent use. The
// scripts of its tests are in testdata: what resources render to, and what
// becomes of parts.
package render

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// Labels that say which cluster, and which part of it, a series is of.
const (
	projectLabel   = "project_id"
	locationLabel  = "location"
	clusterLabel   = "cluster"
	namespaceLabel = "namespace"
	jobLabel       = "job"
	instanceLabel  = "instance"
)

// Settings are what the operator is told by its flags.
type Settings struct {
	// SystemNamespace has what is rendered, PublicNamespace the OperatorConfig
	// and the Secrets that it refers to.
	SystemNamespace, PublicNamespace string
	// ProjectID, Location and Cluster name this cluster where the OperatorConfig
	// has no external label of the name. Those that are empty are left out.
	ProjectID, Location, Cluster string
	// Scope restricts the expressions of Rules and ClusterRules as the
	// rule-evaluators will; see rule.Options.
	Scope rule.ScopeFunc
	// CheckEvaluator reads a configuration as rule-evaluators do. It may be nil.
	CheckEvaluator func(config []byte) error
}

// Renderer renders resources under one OperatorConfig.
type Renderer struct {
	settings Settings
	config   v1.OperatorConfig
	// place is the cluster that this is: the labels of its targets, and what its
	// rules are scoped to.
	place labels.Labels
}

// Piece is what one resource contributes to the configuration.
type Piece struct {
	// Key identifies the resource: "PodMonitoring/shop/api" where it is about
	// scraping, and the name of the file, "rules__shop__slo.yaml", for rules.
	Key string
	// Text is a part of a file: scrape configurations as the items of a YAML
	// list, or a whole file of rules. It is empty if there is nothing to do.
	Text []byte
	// Secrets are the keys that the text refers to, sorted, each once.
	Secrets []SecretKey
}

// Config is a configuration file.
type Config struct {
	Text []byte
	// Secrets are the keys that the text refers to, sorted, each once.
	Secrets []SecretKey
	// Warnings say what of the OperatorConfig has no effect, or hardly the one
	// that was meant.
	Warnings []string
}

// New returns a Renderer for the OperatorConfig, nil if there is none. Neither
// it nor what it points to may change afterwards.
func New(s Settings, oc *v1.OperatorConfig) *Renderer {
	r := &Renderer{settings: s}
	if oc != nil {
		r.config = *oc
	}
	r.place = placeOf(s, r.config.Collection.ExternalLabels)
	return r
}

// placeOf resolves the labels of the cluster: external labels win over flags.
func placeOf(s Settings, external map[string]string) labels.Labels {
	b := labels.NewScratchBuilder(3)
	for _, l := range []labels.Label{{Name: clusterLabel, Value: s.Cluster}, {Name: locationLabel, Value: s.Location}, {Name: projectLabel, Value: s.ProjectID}} {
		if v, ok := external[l.Name]; ok {
			l.Value = v
		}
		if l.Value != "" {
			b.Add(l.Name, l.Value)
		}
	}
	return b.Labels()
}

// externalLabels adds the labels of the cluster to those of a section. Where
// they differ the cluster's count: what is collected and what is evaluated
// would not meet otherwise.
func (r *Renderer) externalLabels(section map[string]string) map[string]string {
	out := maps.Clone(section)
	if out == nil {
		out = map[string]string{}
	}
	r.place.Range(func(l labels.Label) { out[l.Name] = l.Value })
	return out
}

// sortedSecrets returns the keys sorted, each once.
func sortedSecrets(keys []SecretKey) []SecretKey {
	slices.SortFunc(keys, func(a, b SecretKey) int { return strings.Compare(a.File(), b.File()) })
	return slices.Compact(keys)
}
