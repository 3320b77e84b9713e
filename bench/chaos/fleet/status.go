package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// get asks for a page; data, if not nil, is what the Prometheus API wraps.
func get(ctx context.Context, url string, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	if data == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(&struct{ Data any }{data})
}

// Run is a group that a member runs.
type Run struct {
	Member   string
	LastSlot time.Time
}

// Places says where groups run, as one member sees the cluster.
func (f *Fleet) Places(ctx context.Context) (map[string][]Run, error) {
	var status struct {
		Groups []struct {
			Key     string
			Running []Run
		}
	}
	err := errors.New("no member runs")
	for _, i := range f.Members() {
		if err = get(ctx, f.members[i].URL+"/api/v1/status/cluster", &status); err == nil {
			break
		}
	}
	places := map[string][]Run{}
	for _, g := range status.Groups {
		places[g.Key] = g.Running
	}
	return places, err
}

// counted are the metrics of members that are summed up over their restarts.
var counted = map[string][]string{
	"tocsin_ruler_rejected_samples_total":            {"reason"},
	"prometheus_rule_group_iterations_missed_total":  nil,
	"tocsin_ruler_repeated_slots_total":              nil,
	"prometheus_rule_evaluation_failures_total":      nil,
	"prometheus_notifications_dropped_total":         nil,
	"prometheus_rule_group_iterations_total":         nil,
	"tocsin_ruler_write_failures_total":              nil,
	"prometheus_notifications_alertmanagers_dropped": nil,
}

// Watch reads the counters of all members until ctx ends; what a member counts
// between the last reading and its death is lost.
func (f *Fleet) Watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for i, m := range f.members {
			if now, err := readCounters(ctx, m.URL); err == nil {
				f.count(fmt.Sprint(i), now)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *Fleet) count(process string, now map[string]float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.counters[process]
	for name, v := range now {
		if v < last[name] {
			last[name] = 0 // It was restarted.
		}
		f.totals[name] += v - last[name]
	}
	f.counters[process] = now
}

// Counters are the sums of all members' counters since the start.
func (f *Fleet) Counters() map[string]float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.totals)
}

func readCounters(ctx context.Context, url string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return parseCounters(resp.Body)
}

func parseCounters(r io.Reader) (map[string]float64, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for name, kept := range counted {
		for _, m := range families[name].GetMetric() {
			sums[name+suffix(m, kept)] += m.GetCounter().GetValue()
		}
	}
	return sums, nil
}

func suffix(m *dto.Metric, kept []string) string {
	text := ""
	for _, l := range m.GetLabel() {
		if slices.Contains(kept, l.GetName()) {
			text += fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
		}
	}
	return text
}
