package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// pod is a target. It has another name after it was replaced.
type pod struct {
	*httptest.Server
	index, series int
	generation    atomic.Int64
}

func newPod(index, series int) *pod {
	p := &pod{index: index, series: series}
	p.Server = httptest.NewServer(p)
	return p
}

func (p *pod) name() string {
	return fmt.Sprintf("checkout-6d5f7c9b8-%03d-%05d", p.index, p.generation.Load())
}

// seriesPerFamily is what a metric with two labels comes to.
const seriesPerFamily = 10

// ServeHTTP shows half counters that move and half gauges that mostly rest, as
// applications do.
func (p *pod) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	b.Grow(p.series * 96)
	now := time.Now().Unix()
	for family := range p.series / seriesPerFamily {
		name, kind := fmt.Sprintf("checkout_requests_%04d_total", family), "counter"
		if family%2 == 1 {
			name, kind = fmt.Sprintf("checkout_pool_%04d_bytes", family), "gauge"
		}
		fmt.Fprintf(&b, "# HELP %s What the application counts or holds, number %d of its kinds.\n# TYPE %s %s\n", name, family, name, kind)
		for i := range seriesPerFamily {
			fmt.Fprintf(&b, "%s{handler=\"/api/v1/resource-%d\",code=\"%d\"} %s\n", name, i%5, 200+i/5, p.value(kind, family, i, now))
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write([]byte(b.String()))
}

func (p *pod) value(kind string, family, i int, now int64) string {
	if kind == "counter" {
		return fmt.Sprint(now*int64(1+family%7)*int64(i+1) - 1_700_000_000)
	}
	return fmt.Sprintf("%.3f", float64(family*1000+i)+float64(now/300%10)/8)
}

// pods are the targets of a node, in the file that the agents read.
type pods struct {
	file string
	all  []*pod
	next int
}

func newPods(dir string, s scenario) (*pods, error) {
	ps := &pods{file: filepath.Join(dir, "targets.json")}
	for i := range s.pods {
		ps.all = append(ps.all, newPod(i, s.series))
	}
	return ps, ps.write()
}

func (ps *pods) close() {
	for _, p := range ps.all {
		p.Close()
	}
}

// replace gives n pods new names.
func (ps *pods) replace(n int) error {
	for range n {
		ps.all[ps.next%len(ps.all)].generation.Add(1)
		ps.next++
	}
	return ps.write()
}

func (ps *pods) write() error {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	groups := make([]group, len(ps.all))
	for i, p := range ps.all {
		groups[i] = group{
			Targets: []string{strings.TrimPrefix(p.URL, "http://")},
			Labels: map[string]string{
				"instance": p.name() + ":metrics", "pod": p.name(), "namespace": "shop", "container": "server",
				"node": "gke-prod-pool-1-8f3a", "project_id": "example", "location": "europe-west1", "cluster": "prod",
			},
		}
	}
	content, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ps.file+".next", content, 0o600); err != nil {
		return err
	}
	return os.Rename(ps.file+".next", ps.file)
}
