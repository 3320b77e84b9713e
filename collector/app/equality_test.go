package app_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/test/program"
)

// page is one answer of a target; an empty one is a connection that breaks.
type page struct{ contentType, body string }

const (
	textType        = "text/plain; version=0.0.4"
	openMetricsType = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

func texts(contentType string, bodies ...string) []page {
	pages := make([]page, 0, len(bodies))
	for _, b := range bodies {
		pages = append(pages, page{contentType, b})
	}
	return pages
}

// scripted is a target that answers the n-th scrape of each scraper, which it
// knows by the parameter who, with its n-th page, and with the last one from
// then on.
type scripted struct {
	pages []page
	check func(*http.Request) bool // nil admits everybody

	mu   sync.Mutex
	seen map[string]int
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.check != nil && !s.check(r) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	if s.seen == nil {
		s.seen = map[string]int{}
	}
	who := r.URL.Query().Get("who")
	p := s.pages[min(s.seen[who], len(s.pages)-1)]
	s.seen[who]++
	s.mu.Unlock()
	if p.body == "" {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", p.contentType)
	var body bytes.Buffer
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(&body)
		_, _ = z.Write([]byte(p.body)) // to memory
		_ = z.Close()
	} else {
		body.WriteString(p.body)
	}
	_, _ = w.Write(body.Bytes())
}

// nativeHistograms are pages in protobuf with what only that has.
func nativeHistograms(t *testing.T) []page {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", Help: "Time.", NativeHistogramBucketFactor: 1.1})
	both := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "size_bytes", Help: "Size.", Buckets: []float64{1, 10, 100}, NativeHistogramBucketFactor: 1.5,
	}, []string{"kind"})
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "done_total", Help: "Things done."})
	reg.MustRegister(h, both, c)
	pages := make([]page, 0, 4)
	for i := range 4 {
		c.(prometheus.ExemplarAdder).AddWithExemplar(1, prometheus.Labels{"trace_id": fmt.Sprint("t", i)})
		for j := range 20 * (i + 1) {
			h.(prometheus.ExemplarObserver).ObserveWithExemplar(0.01*float64(j*j), prometheus.Labels{"trace_id": fmt.Sprint(i, "-", j)})
			both.WithLabelValues(fmt.Sprint("k", j%2)).Observe(float64(j * j))
		}
		families, err := reg.Gather()
		require.NoError(t, err)
		var b bytes.Buffer
		format := expfmt.NewFormat(expfmt.TypeProtoDelim)
		enc := expfmt.NewEncoder(&b, format)
		for _, f := range families {
			require.NoError(t, enc.Encode(f))
		}
		pages = append(pages, page{string(format), b.String()})
	}
	return pages
}

// equalityCase is a job: a target and how it is scraped.
type equalityCase struct {
	target *scripted
	config string
}

func equalityCases(t *testing.T) map[string]equalityCase {
	// What is older than the start of a scraper is not sent by either.
	created := fmt.Sprint(time.Now().Unix())
	soon := time.Now().Add(time.Minute)
	exposed := make([]page, 0, 3)
	for i := range 3 {
		at := soon.Add(time.Duration(i) * time.Second).UnixMilli()
		exposed = append(exposed, page{textType, fmt.Sprintf("g{a=\"1\"} 7 %d\ng{a=\"2\"} 8\n", at)})
	}
	exposed[1].body = "other 1\n"
	return map[string]equalityCase{
		"text": {&scripted{pages: texts(textType,
			"# HELP c_total Count.\n# TYPE c_total counter\nc_total{a=\"1\"} 1\nc_total{a=\"2\"} 2\n# TYPE g gauge\ng NaN\nuntyped +Inf\n",
			"# HELP c_total Count.\n# TYPE c_total counter\nc_total{a=\"1\"} 2\n# TYPE g gauge\ng -Inf\n",
			"# HELP c_total Count, said otherwise.\n# TYPE c_total counter\nc_total{a=\"1\"} 0\nc_total{a=\"2\"} 3\nc_total{a=\"2\"} 4\n",
			"# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2.0\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n# TYPE s summary\ns{quantile=\"0.5\"} 1e-9\ns_sum 1\ns_count 2\n",
			"empty_label{a=\"\",b=\"é\\n\\\\\\\"\"} 1\n",
		)}, ""},
		"openmetrics": {&scripted{pages: texts(openMetricsType,
			"# TYPE c counter\n# UNIT c_seconds seconds\n# HELP c Count.\nc_total{a=\"1\"} 1 # {trace_id=\"x\"} 0.5\nc_created{a=\"1\"} "+created+"\n# EOF\n",
			"# TYPE c counter\n# HELP c Count.\nc_total{a=\"1\"} 2 # {trace_id=\"y\"} 0.6 "+created+"\n# TYPE i info\ni_info{v=\"1\"} 1\n# TYPE st stateset\nst{st=\"on\"} 1\nst{st=\"off\"} 0\n# EOF\n",
			"# TYPE h histogram\nh_bucket{le=\"1.0\"} 1 # {trace_id=\"z\"} 0.7\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n# EOF\n",
			"# TYPE gh gaugehistogram\ngh_bucket{le=\"+Inf\"} 1\ngh_gsum 1\ngh_gcount 1\n# EOF\n",
		)}, ""},
		"native":             {&scripted{pages: nativeHistograms(t)}, "scrape_native_histograms: true\n  scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0]"},
		"native-and-classic": {&scripted{pages: nativeHistograms(t)}, "scrape_native_histograms: true\n  always_scrape_classic_histograms: true\n  scrape_protocols: [PrometheusProto]"},
		"custom-buckets":     {&scripted{pages: nativeHistograms(t)}, "convert_classic_histograms_to_nhcb: true\n  scrape_native_histograms: true\n  scrape_protocols: [PrometheusProto]"},
		"exposed-times":      {&scripted{pages: exposed}, ""},
		"tracked-times":      {&scripted{pages: exposed}, "track_timestamps_staleness: true"},
		"own-times":          {&scripted{pages: exposed}, "honor_timestamps: false"},
		"conflicts":          {&scripted{pages: texts(textType, "m{job=\"theirs\",instance=\"i\",zone=\"z\"} 1\n")}, ""},
		"honored":            {&scripted{pages: texts(textType, "m{job=\"honored\",instance=\"i\",zone=\"z\"} 1\nup 7\n")}, "honor_labels: true"},
		"relabelled": {
			&scripted{pages: texts(textType, "a 1\nb{x=\"1\",y=\"2\"} 2\nc 3\n", "b{x=\"1\",y=\"2\"} 4\n")},
			"metric_relabel_configs:\n  - {source_labels: [__name__], regex: a, action: drop}\n  - {regex: y, action: labeldrop}\n  - {source_labels: [__name__], regex: c, target_label: __name__, replacement: renamed}",
		},
		"sample-limit": {&scripted{pages: texts(textType, "a 1\nb 1\n", "a 1\nb 1\nc 1\n", "a 2\n")}, "sample_limit: 2"},
		"label-limits": {&scripted{pages: texts(textType, "a 1\n", "a{b=\"12345678901\"} 1\n", "a 2\n")}, "label_limit: 10\n  label_value_length_limit: 40"},
		"body-limit":   {&scripted{pages: texts(textType, "a 1\n", "a 1\n"+strings.Repeat("#", 2000), "a 2\n")}, "body_size_limit: 1KB"},
		"bucket-limit": {&scripted{pages: nativeHistograms(t)}, "native_histogram_bucket_limit: 20\n  native_histogram_min_bucket_factor: 1.2\n  scrape_native_histograms: true\n  scrape_protocols: [PrometheusProto]"},
		"down":         {&scripted{pages: texts(textType, "a 1\n", "", "", "a 2\n")}, ""},
		"broken":       {&scripted{pages: texts(textType, "a 1\nb 1\n", "a 2\nb{ 1\n", "a 3\n")}, ""},
		"no-type":      {&scripted{pages: texts("", "a 1\n")}, ""},
		"fallback":     {&scripted{pages: texts("application/octet-stream", "a 1\n")}, "fallback_scrape_protocol: PrometheusText0.0.4"},
		"utf8":         {&scripted{pages: texts(textType+"; escaping=allow-utf-8", "{\"a.b\",\"c.d\"=\"e\"} 1\n")}, ""},
		"escaped":      {&scripted{pages: texts(textType+"; escaping=allow-utf-8", "{\"a.b\"} 1\n")}, "metric_name_validation_scheme: legacy"},
	}
}

// equalityConfig is the configuration of one of the two scrapers.
func equalityConfig(who string, cases map[string]equalityCase, targets map[string]string, writeTo string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  external_labels: {cluster: east}
remote_write:
- url: %s
  protobuf_message: io.prometheus.write.v2.Request
  send_exemplars: true
  send_native_histograms: true
  queue_config: {batch_send_deadline: 200ms}
scrape_configs:`, writeTo)
	for name, c := range cases {
		fmt.Fprintf(&b, "\n- job_name: %s\n  params: {who: [%s]}\n  static_configs: [{targets: ['%s'], labels: {zone: a}}]\n  %s\n", name, who, targets[name], c.config)
	}
	return b.String()
}

// scrapesCompared is more than any case has pages.
const scrapesCompared = 6

func TestSamplesAreThoseOfPrometheus(t *testing.T) {
	t.Parallel()
	binary := program.Prometheus().Build(t)
	cases, targets := equalityCases(t), map[string]string{}
	for name, c := range cases {
		srv := httptest.NewServer(c.target)
		t.Cleanup(srv.Close)
		targets[name] = strings.TrimPrefix(srv.URL, "http://")
	}
	want, got := newRecorder(t), newRecorder(t)
	runPrometheus(t, binary, equalityConfig("prometheus", cases, targets, want.URL))
	newSetup(t, equalityConfig("collector", cases, targets, got.URL)).start(t)
	for name := range cases {
		for _, r := range []*recorder{want, got} {
			waitFor(t, name, func() bool { return len(r.scrapes(name)) > scrapesCompared })
		}
	}
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, want.script(name, scrapesCompared), got.script(name, scrapesCompared))
		})
	}
}

// runPrometheus runs a server until the test ends.
func runPrometheus(t *testing.T, binary, config string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	var log bytes.Buffer
	cmd := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0",
		"--enable-feature=exemplar-storage,metadata-wal-records,created-timestamp-zero-ingestion")
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus:\n%s", log.String())
		}
	})
}
