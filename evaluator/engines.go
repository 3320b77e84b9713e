package evaluator

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/features"
)

// engines evaluate locally, each with another bound on the samples that a
// query holds in memory. The first is that of tenants without limits of their
// own; it alone has metrics.
type engines struct {
	usual   *promql.Engine
	special map[int64]*promql.Engine
}

func newEngines(cfg Config, logger *slog.Logger, reg prometheus.Registerer) engines {
	e := engines{usual: newEngine(cfg, cfg.Limits.Query.Samples, logger, reg), special: map[int64]*promql.Engine{}}
	for _, t := range cfg.Limits.Tenants {
		if samples := t.Query.Samples; samples != 0 {
			e.special[samples] = newEngine(cfg, samples, logger, nil)
		}
	}
	return e
}

func newEngine(cfg Config, samples int64, logger *slog.Logger, reg prometheus.Registerer) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:                   logger,
		Reg:                      reg,
		MaxSamples:               int(samples),
		Timeout:                  time.Duration(cfg.Timeout),
		LookbackDelta:            time.Duration(cfg.LookbackDelta),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Duration(cfg.SubqueryStep).Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		FeatureRegistry:          features.NewRegistry(),
	})
}

// of returns the engine for a limit of samples. The queries of folds have the
// limits of many and get the usual one; if that does not suffice, each of them
// is evaluated alone.
func (e engines) of(samples int64) *promql.Engine {
	if engine, ok := e.special[samples]; ok {
		return engine
	}
	return e.usual
}
