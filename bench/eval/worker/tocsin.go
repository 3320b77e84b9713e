package worker

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	tocsin "github.com/tocsin-rules/tocsin/evaluator"
)

// batchTimeout is far beyond what any batch needs: a slow machine shall give
// figures, not errors.
const batchTimeout = 10 * time.Minute

// newTocsin is Tocsin's evaluator; all rules of a slot are one batch.
func newTocsin(s Setup, logger *slog.Logger) (evaluator, func() error, error) {
	cfg := tocsin.DefaultConfig()
	cfg.Timeout = model.Duration(batchTimeout)
	for _, at := range s.Endpoints {
		b, err := backendConfig(at, s.Kind)
		if err != nil {
			return nil, nil, err
		}
		cfg.Backends = append(cfg.Backends, b)
	}
	e, err := tocsin.New(cfg, logger, prometheus.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	queries := make([]tocsin.Query, len(s.Rules))
	for i, r := range s.Rules {
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			return nil, nil, err
		}
		queries[i] = tocsin.Query{Name: r.Name(), Expr: expr, Scope: labels.FromMap(r.Scope)}
	}
	return func(ctx context.Context, ts time.Time) func() []Result {
		answers := e.Evaluate(ctx, ts, queries)
		return func() []Result {
			results := make([]Result, len(answers))
			for i, a := range answers {
				results[i] = result(a.Vector, a.Err)
			}
			return results
		}
	}, e.Close, nil
}

func backendConfig(at Endpoint, k Kind) (tocsin.BackendConfig, error) {
	base, err := url.Parse(at.HTTP)
	b := tocsin.BackendConfig{
		Name:             "all",
		URL:              config.URL{URL: base},
		HTTPClientConfig: config.DefaultHTTPClientConfig,
	}
	if at.Cluster != "" {
		b.Name, b.PartitionLabels = at.Cluster, map[string]string{"cluster": at.Cluster}
	}
	if k == Native {
		b.GRPC = &tocsin.GRPCConfig{Address: at.GRPC}
	}
	return b, err
}

// result makes the answer of an engine comparable.
func result(v promql.Vector, err error) Result {
	if err != nil {
		return Result{Err: err.Error()}
	}
	samples := make([]Sample, len(v))
	for i, s := range v {
		if s.H != nil {
			return histogramResult(s.Metric)
		}
		samples[i] = Sample{Labels: s.Metric.String(), Value: s.F}
	}
	return Result{Samples: samples}
}

// histogramResult refuses what the JSON of the Prometheus API rounds.
func histogramResult(ls labels.Labels) Result {
	return Result{Err: "the result has a native histogram, which not all variants can compare: " + ls.String()}
}
