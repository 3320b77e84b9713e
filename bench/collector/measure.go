package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// node is one run of a scenario.
type node struct {
	options
	scenario

	dir      string
	pods     *pods
	receiver *receiver
	agents   []*agent
}

// figures are what one agent took while it was measured.
type figures struct {
	name                   string
	meanRSS, peakRSS, anon float64 // bytes
	cpu                    time.Duration
	sent, written, samples int
	first                  time.Duration
}

func (n *node) measure(ctx context.Context, kinds []kind) ([]figures, error) {
	n.receiver = newReceiver()
	defer n.receiver.Close()
	var err error
	if n.pods, err = newPods(n.dir, n.scenario); err != nil {
		return nil, err
	}
	defer n.pods.close()
	defer n.stop()
	for i, k := range kinds {
		if err := n.start(i, k); err != nil {
			return nil, err
		}
	}
	if err := n.watch(ctx, n.warmup, nil); err != nil {
		return nil, err
	}
	all := make([]figures, len(n.agents))
	for i := range all {
		if err := n.begin(i, &all[i]); err != nil {
			return nil, err
		}
	}
	if err := n.watch(ctx, n.duration, all); err != nil {
		return nil, err
	}
	return all, n.end(all)
}

func (n *node) start(i int, k kind) error {
	url := fmt.Sprintf("%s/%d", n.receiver.URL, i)
	file := filepath.Join(n.dir, fmt.Sprintf("agent-%d.yml", i))
	data, err := os.MkdirTemp(n.dir, "data-")
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`
global: {scrape_interval: %[1]s, scrape_timeout: %[1]s}
remote_write: [{url: %[2]q}]
scrape_configs:
- job_name: pods
  file_sd_configs: [{files: [%[3]q]}]
`, n.interval, url, n.pods.file)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	a, err := k.start(file, data, url)
	if err == nil {
		n.agents = append(n.agents, a)
	}
	return err
}

func (n *node) stop() {
	for _, a := range n.agents {
		a.stop()
	}
}

// watch lets time pass, in which pods are replaced, and adds to the figures
// what the agents hold of memory.
func (n *node) watch(ctx context.Context, d time.Duration, all []figures) error {
	const step = 250 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	replacements := 0.0
	steps := int(d / step)
	for range steps {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		replacements += n.churn * float64(n.scenario.pods) * step.Minutes()
		if replacements >= 1 {
			if err := n.pods.replace(int(replacements)); err != nil {
				return err
			}
			replacements -= float64(int(replacements))
		}
		for i := range all {
			u, err := n.agents[i].usage()
			if err != nil {
				return err
			}
			all[i].meanRSS += float64(u.resident) / float64(steps)
			all[i].anon += float64(u.anonymous) / float64(steps)
		}
	}
	return nil
}

// begin notes with a minus sign what an agent has used before.
func (n *node) begin(i int, f *figures) error {
	u, err := n.agents[i].usage()
	got := n.receiver.get(fmt.Sprint(i))
	f.name = n.agents[i].name
	f.cpu, f.written, f.sent, f.samples = -u.cpu, -u.written, -got.bytes, -got.samples
	return err
}

func (n *node) end(all []figures) error {
	for i := range all {
		u, err := n.agents[i].usage()
		if err != nil {
			return err
		}
		got := n.receiver.get(fmt.Sprint(i))
		f := &all[i]
		f.cpu += u.cpu
		f.written += u.written
		f.sent += got.bytes
		f.samples += got.samples
		f.peakRSS = float64(u.peak)
		f.first = got.first.Sub(n.agents[i].started)
	}
	return nil
}

// table has a row for each agent; in brackets are ratios to the first.
func table(all []figures) string {
	var b strings.Builder
	b.WriteString("| agent | mean RSS | of it anonymous | peak RSS | CPU | sent | written to disk | samples | bytes sent per sample | first sample after |\n|---|---|---|---|---|---|---|---|---|---|\n")
	base := all[0]
	for _, f := range all {
		fmt.Fprintf(&b, "| %s | %s | %.1f MiB | %s | %s | %s | %.1f MiB | %d | %.1f | %.1f s |\n", f.name,
			ratio("%.1f MiB", f.meanRSS/(1<<20), base.meanRSS/(1<<20)), f.anon/(1<<20), ratio("%.1f MiB", f.peakRSS/(1<<20), base.peakRSS/(1<<20)),
			ratio("%.2f s", f.cpu.Seconds(), base.cpu.Seconds()), ratio("%.2f MiB", float64(f.sent)/(1<<20), float64(base.sent)/(1<<20)),
			float64(f.written)/(1<<20), f.samples, float64(f.sent)/float64(f.samples), f.first.Seconds())
	}
	return b.String()
}

func ratio(format string, value, base float64) string {
	return fmt.Sprintf(format+" (%.2f)", value, value/base)
}

// perSeries compares two scenarios that differ in the number of pods alone.
func perSeries(few, many []figures) string {
	if few == nil || many == nil {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## Memory for each further 1,000 series\n\n| agent | mean RSS |\n|---|---|\n")
	added := float64(scenarios["dense"].pods-scenarios["example"].pods) * float64(scenarios["example"].series) / 1000
	more := func(i int) float64 { return (many[i].meanRSS - few[i].meanRSS) / added / (1 << 10) }
	for i := range few {
		fmt.Fprintf(&b, "| %s | %s |\n", few[i].name, ratio("%.0f KiB", more(i), more(0)))
	}
	return b.String()
}
