// Package promserver runs Prometheus' own HTTP API over a TSDB on a loopback
// listener, for the tests of the evaluator. It never runs outside tests.
package promserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/teststorage"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
)

// Engine returns Prometheus' engine with the settings that the evaluator
// assumes of a backend.
func Engine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:                   promslog.NewNopLogger(),
		MaxSamples:               50_000_000,
		Timeout:                  time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		FeatureRegistry:          features.NewRegistry(),
	})
}

// Storage returns an empty TSDB that goes away with the test.
func Storage(t testing.TB) *teststorage.TestStorage {
	t.Helper()
	db := teststorage.New(t)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// Append writes series, the samples of each in the order of their times.
func Append(t testing.TB, db storage.Appendable, series []promql.Series) {
	t.Helper()
	app := db.Appender(context.Background())
	for _, s := range series {
		floats := s.Floats
		for _, p := range s.Histograms {
			for ; len(floats) > 0 && floats[0].T < p.T; floats = floats[1:] {
				appendFloat(t, app, s.Metric, floats[0])
			}
			_, err := app.AppendHistogram(0, s.Metric, p.T, nil, p.H)
			require.NoError(t, err, "append to %s", s.Metric)
		}
		for _, p := range floats {
			appendFloat(t, app, s.Metric, p)
		}
	}
	require.NoError(t, app.Commit())
}

func appendFloat(t testing.TB, app storage.Appender, metric labels.Labels, p promql.FPoint) {
	t.Helper()
	_, err := app.Append(0, metric, p.T, p.F)
	require.NoError(t, err, "append to %s", metric)
}

// Handler is the API, remote read included, over db. External labels are those
// that remote read adds.
func Handler(db storage.SampleAndChunkQueryable, engine promql.QueryEngine, external labels.Labels) http.Handler {
	cfg := config.DefaultConfig
	cfg.GlobalConfig.ExternalLabels = external
	return handler(db, engine, cfg)
}

func handler(db storage.SampleAndChunkQueryable, engine promql.QueryEngine, cfg config.Config) http.Handler {
	api := v1.NewAPI(
		engine, db, nil, nil, nil, nil, nil,
		func() config.Config { return cfg },
		nil, v1.GlobalURLOptions{},
		func(next http.HandlerFunc) http.HandlerFunc { return next },
		nil, "", false, promslog.NewNopLogger(), nil,
		50_000_000, 10, 1<<20, false,
		regexp.MustCompile("^$"), nil, nil, nil, nil,
		prometheus.NewRegistry(), nil, nil,
		false, nil, false, false, false, false,
		5*time.Minute, false, false, nil, features.NewRegistry(),
	)
	router := route.New().WithPrefix("/api/v1")
	api.Register(router)
	return router
}

// API is the API over any engine and storage.
func API(engine promql.QueryEngine, data storage.SampleAndChunkQueryable) http.Handler {
	return handler(data, engine, config.DefaultConfig)
}

// Start serves the API of db and returns its base URL.
func Start(t testing.TB, db *teststorage.TestStorage, external labels.Labels) string {
	t.Helper()
	return StartOver(t, db, external)
}

// StartOver is Start over any storage.
func StartOver(t testing.TB, db storage.SampleAndChunkQueryable, external labels.Labels) string {
	t.Helper()
	s := httptest.NewServer(Handler(db, Engine(), external))
	t.Cleanup(s.Close)
	return s.URL
}
