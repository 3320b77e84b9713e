package worker

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// concurrency is the number of queries in progress at a time, as many as
// Tocsin's evaluator sends to a backend.
const concurrency = 8

// newPerRule asks one server once for every rule, as rulers do that know no
// batches.
func newPerRule(s Setup) (evaluator, error) {
	transport := &http.Transport{
		MaxIdleConnsPerHost: concurrency,
		DisableCompression:  s.Kind == PerRulePlain,
	}
	client, err := api.NewClient(api.Config{Address: s.Endpoints[0].HTTP, RoundTripper: transport})
	if err != nil {
		return nil, err
	}
	queries := v1.NewAPI(client)
	return func(ctx context.Context, ts time.Time) func() []Result {
		values, errs := make([]model.Value, len(s.Rules)), make([]error, len(s.Rules))
		inParallel(len(s.Rules), func(i int) {
			values[i], _, _, errs[i] = queries.Query(ctx, s.Rules[i].Expr, ts)
		})
		return func() []Result {
			results := make([]Result, len(s.Rules))
			for i := range results {
				results[i] = apiResult(values[i], errs[i])
			}
			return results
		}
	}, nil
}

// inParallel calls do for 0 to n-1.
func inParallel(n int, do func(int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range concurrency {
		workers.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// apiResult makes an answer of the API comparable.
func apiResult(v model.Value, err error) Result {
	if err != nil {
		return Result{Err: err.Error()}
	}
	vector, ok := v.(model.Vector)
	if !ok {
		return Result{Err: fmt.Sprintf("the answer is a %s", v.Type())}
	}
	samples := make([]Sample, len(vector))
	for i, s := range vector {
		b := labels.NewScratchBuilder(len(s.Metric))
		for name, value := range s.Metric {
			b.Add(string(name), string(value))
		}
		b.Sort()
		if s.Histogram != nil {
			return histogramResult(b.Labels())
		}
		samples[i] = Sample{Labels: b.Labels().String(), Value: float64(s.Value)}
	}
	return Result{Samples: samples}
}
