package worker

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
)

// newRemoteRead is Prometheus' engine here over the raw series of all servers,
// as Prometheus does it with remote_read: a server is asked only for series that
// it may have.
func newRemoteRead(s Setup, logger *slog.Logger) (evaluator, error) {
	var servers fanIn
	for _, at := range s.Endpoints {
		q, err := reader(at)
		if err != nil {
			return nil, err
		}
		servers = append(servers, q)
	}
	query := rules.EngineQueryFunc(newEngine(logger), servers)
	return func(ctx context.Context, ts time.Time) func() []Result {
		vectors, errs := make([]promql.Vector, len(s.Rules)), make([]error, len(s.Rules))
		inParallel(len(s.Rules), func(i int) { vectors[i], errs[i] = query(ctx, s.Rules[i].Expr, ts) })
		return func() []Result {
			results := make([]Result, len(s.Rules))
			for i := range results {
				results[i] = result(vectors[i], errs[i])
			}
			return results
		}
	}, nil
}

func reader(at Endpoint) (source, error) {
	base, err := url.Parse(at.HTTP + "/api/v1/read")
	if err != nil {
		return source{}, err
	}
	client, err := remote.NewReadClient("bench", &remote.ClientConfig{
		URL:              &config.URL{URL: base},
		Timeout:          model.Duration(batchTimeout),
		HTTPClientConfig: config.DefaultHTTPClientConfig,
		ChunkedReadLimit: 50 << 20,
	})
	if err != nil {
		return source{}, err
	}
	return source{cluster: at.Cluster, Queryable: remote.NewSampleAndChunkQueryableClient(client, labels.EmptyLabels(), nil, true, nil)}, nil
}

// source is the series of one server.
type source struct {
	storage.Queryable
	cluster string
}

// fanIn is the union of what servers have.
type fanIn []source

// Querier implements storage.Queryable.
func (f fanIn) Querier(mint, maxt int64) (storage.Querier, error) {
	queriers := make([]storage.Querier, len(f))
	for i, s := range f {
		q, err := s.Querier(mint, maxt)
		if err != nil {
			return nil, err
		}
		queriers[i] = partition{q, s.cluster}
	}
	return storage.NewMergeQuerier(queriers, nil, storage.ChainedSeriesMerge), nil
}

// partition asks only for what can be there.
type partition struct {
	storage.Querier
	cluster string
}

// Select implements storage.Querier.
func (p partition) Select(ctx context.Context, sort bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	for _, m := range ms {
		if p.cluster != "" && m.Name == "cluster" && !m.Matches(p.cluster) {
			return storage.EmptySeriesSet()
		}
	}
	return p.Querier.Select(ctx, sort, hints, ms...)
}
