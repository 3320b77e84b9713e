package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
	tocsin "github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/schedule"
)

// batchTimeout is far beyond what any batch needs: a slow machine shall give
// figures, not errors.
const batchTimeout = 10 * time.Minute

// newTocsin is Tocsin's evaluator.
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
	batches, err := batches(s)
	if err != nil {
		return nil, nil, errors.Join(err, e.Close())
	}
	return func(ctx context.Context, ts time.Time) func() []Result {
		answers := make([][]tocsin.Result, len(batches))
		for i, b := range batches {
			answers[i] = e.Evaluate(ctx, ts, b.queries)
		}
		return func() []Result {
			results := make([]Result, len(s.Rules))
			for i, b := range batches {
				for n, rule := range b.rules {
					results[rule] = result(answers[i][n].Vector, answers[i][n].Err)
				}
			}
			return results
		}
	}, e.Close, nil
}

// batch is what is evaluated together.
type batch struct {
	queries []tocsin.Query
	// rules are the indexes of the queries' rules.
	rules []int
}

// batches are one, or one for every offset. All are evaluated at the same time,
// so that the results can be compared with those of others.
func batches(s Setup) ([]batch, error) {
	byOffset := map[time.Duration]*batch{}
	for i, r := range s.Rules {
		expr, err := parser.ParseExpr(r.Expr)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name(), err)
		}
		var offset time.Duration
		if s.Kind == NativeOffsets {
			offset = schedule.Offset(rule.Group{Key: r.Group}.Phase(), dataset.Interval*time.Millisecond)
		}
		if byOffset[offset] == nil {
			byOffset[offset] = &batch{}
		}
		b := byOffset[offset]
		b.queries = append(b.queries, tocsin.Query{Name: r.Name(), Expr: expr, Scope: labels.FromMap(r.Scope)})
		b.rules = append(b.rules, i)
	}
	var all []batch
	for _, offset := range slices.Sorted(maps.Keys(byOffset)) {
		all = append(all, *byOffset[offset])
	}
	return all, nil
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
	if k != HTTP {
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
