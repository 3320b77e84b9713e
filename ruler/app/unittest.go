package app

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler/unittest"
)

// UnitTests returns what evaluates the rules of unit tests: an evaluator whose
// one backend is the engine that newEngine makes for a step of subqueries.
func UnitTests(newEngine func(subqueryStep time.Duration) promql.QueryEngine) unittest.NewEnvironment {
	return func(data storage.Queryable, cfg unittest.EnvironmentConfig) unittest.Environment {
		ec := evaluator.DefaultConfig()
		ec.Limits.Query.Samples = unittest.MaxSamples
		ec.SubqueryStep = model.Duration(cfg.SubqueryStep)
		engine := newEngine(cfg.SubqueryStep)
		reg := prometheus.NewRegistry()
		e := evaluator.NewLocal(ec, engine, data, slog.New(slog.DiscardHandler), reg)
		expand := alerting.NewTemplates(alerting.TemplatesConfig{ExternalLabels: cfg.ExternalLabels, ExternalURL: cfg.ExternalURL}, reg)
		return unittest.Environment{
			Evaluator: batchEvaluator{e},
			Templates: templates{expand, e},
			Engine:    engine,
		}
	}
}
