package evaluator

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// localName is the name of a backend in this process.
const localName = "local"

// NewLocal returns an evaluator whose one backend is in this process: an engine
// over data that belongs to no partition. The backends of cfg are ignored, and
// Queryable has nothing: every query goes to the engine as a whole.
func NewLocal(cfg Config, engine promql.QueryEngine, data storage.Queryable, logger *slog.Logger, reg prometheus.Registerer) *Evaluator {
	backends := []plan.Backend{{Name: localName}}
	return &Evaluator{
		cfg:      cfg,
		backends: backends,
		clients:  []remote.Client{remote.NewLocal(engine, data)},
		raw:      remote.NewRaw(nil),
		local:    newEngines(cfg, logger, prometheus.WrapRegistererWithPrefix("tocsin_evaluator_", reg)),
		metrics:  newMetrics(reg, backends),
	}
}

// Over returns an evaluator with the limits of this one over data in this
// process, on the engine that merges what backends answer.
func (e *Evaluator) Over(data storage.Queryable) *Evaluator {
	return &Evaluator{
		cfg:      e.cfg,
		backends: []plan.Backend{{Name: localName}},
		clients:  []remote.Client{remote.NewLocal(e.local.usual, data)},
		raw:      remote.NewRaw(nil),
		local:    e.local,
		metrics:  e.metrics,
	}
}
