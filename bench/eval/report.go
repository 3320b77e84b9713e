package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
	"github.com/tocsin-rules/tocsin/bench/eval/worker"
)

// titles are what the variants are called.
var titles = map[worker.Kind]string{
	worker.Native:        "Tocsin, native",
	worker.NativeOffsets: "Tocsin, native, by offset",
	worker.HTTP:          "Tocsin, HTTP",
	worker.PerRule:       "one query per rule",
	worker.PerRulePlain:  "one query per rule, no gzip",
	worker.RemoteRead:    "remote read, local engine",
	worker.Manager:       "Prometheus' rule manager",
}

// name says what was asked by what.
func (m measurement) name() string {
	switch {
	case m.store == "":
		return titles[m.kind] + ", in-process"
	case m.store == worker.Prometheus:
		return titles[m.kind] + ", 1 Prometheus"
	case m.backends == 1:
		return titles[m.kind] + ", 1 backend"
	}
	return fmt.Sprintf("%s, %d backends", titles[m.kind], m.backends)
}

// cost is per evaluation of a rule.
type cost struct {
	// evaluator and stores are CPU time in microseconds.
	evaluator, stores float64
	up, down          float64
	objects, bytes    float64
}

func (c cost) cpu() float64 { return c.evaluator + c.stores }

func costOf(m measurement) cost {
	n := float64(m.slots * m.rules)
	return cost{
		evaluator: float64(m.evaluator.CPU.Nanoseconds()) / 1000 / n,
		stores:    float64(m.stores.CPU.Nanoseconds()) / 1000 / n,
		up:        float64(m.up) / n,
		down:      float64(m.down) / n,
		objects:   float64(m.evaluator.Objects) / n,
		bytes:     float64(m.evaluator.Bytes) / n,
	}
}

// report writes the tables and the chart.
func (r *run) report(all []scenario) error {
	base := filepath.Join(r.out, fmt.Sprintf("%s-series-%d-rules", short(r.series), r.rules))
	var text, chart bytes.Buffer
	r.title(&text)
	fmt.Fprintf(&text, "![CPU time per rule evaluation](%s.svg)\n", filepath.Base(base))
	r.goals(&text)
	for _, s := range all {
		if err := r.section(&text, s); err != nil {
			return err
		}
	}
	fmt.Fprint(&text, notes)
	r.chart(&chart)
	return errors.Join(
		os.WriteFile(base+".md", text.Bytes(), 0o644),
		os.WriteFile(base+".svg", chart.Bytes(), 0o644),
	)
}

// titlesOf scenarios are their headings.
var titlesOf = map[string]string{
	scenarioRules:       "All rules",
	scenarioAggregating: "Rules that aggregate all that they select",
	scenarioOneTenant:   "One rule pack, one tenant",
	scenarioTenants:     fmt.Sprintf("One rule pack, %d tenants", tenants),
	scenarioGlobal:      "Rules about the whole fleet",
	scenarioFew:         "Some rules",
	scenarioMany:        "Ten times as many rules over the same selectors",
}

// section is about one scenario.
func (r *run) section(w io.Writer, s scenario) error {
	used, different, err := dataset.Selectors(s.rules)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n## %s\n\n%d rules over %d series with %d selectors, %d different ones (windows aside). All variants had the same results in all slots: the same series, values within %g.\n\n",
		titlesOf[s.name], len(s.rules), r.data[s.fleet].series, used, different, tolerance)
	r.table(w, s.name)
	return nil
}

func short(n int) string {
	if n%1000 == 0 {
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

func (r *run) title(w io.Writer) {
	fmt.Fprintf(w, "# What a rule evaluation costs: %s series, %d rules\n\n", short(r.series), r.rules)
	fmt.Fprintf(w, "Made by `go run ./bench/eval %s` on %s.\n\n", r.flags(), time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	fmt.Fprintf(w, "%s\n\n", machine())
}

// flags are those that make the same run.
func (o options) flags() string {
	text := fmt.Sprintf("--series %s --rules %d --slots %d --seed %d --backends %s", short(o.series), o.rules, o.slots, o.seed, strings.Trim(strings.ReplaceAll(fmt.Sprint(o.backends), " ", ","), "[]"))
	if len(o.scenarios) != len(allScenarios) {
		text += " --scenarios " + strings.Join(o.scenarios, ",")
	}
	if len(o.only) > 0 {
		text += " --only " + strings.Join(o.only, ",")
	}
	return text
}

const notes = `
## How it was measured

* CPU is user and system time of a process (getrusage) while slots are evaluated, divided by rules and slots; memory is the
  largest resident size (VmHWM, of several backends the sum); bytes are the payload of TCP, counted by a proxy on loopback whose
  own time is not counted. Allocations are those of the evaluator.
* Stores and evaluators are processes of their own, new ones for every variant. One slot is evaluated before the measured
  ones, so connections and the label tables of the native protocol are there; of remote read the first and only slot is measured.
* All rules of a slot are one batch of Tocsin's, except "by offset": there the groups are spread over the offsets that they have
  within their interval, a batch for each, as one member evaluates them that owns them all.
  The others have eight queries in progress at a time, the manager eight groups.
* The rule manager does not write, but does step its alerts; the others only evaluate.
* "1 Prometheus" is Prometheus' TSDB, engine and HTTP API; "backends" are ` + "`tocsin backend`" + `, one for every cluster if there are
  four. The data was written beforehand.
`

func (r *run) table(w io.Writer, scenario string) {
	fmt.Fprint(w, "| variant | evaluator µs | store µs | sum µs | bytes up | bytes down | allocations | allocated KiB | evaluator MiB | stores MiB | slot p50 ms | slot p90 ms | slot max ms |\n")
	fmt.Fprint(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, m := range r.measurements {
		if m.scenario != scenario {
			continue
		}
		c := costOf(m)
		fmt.Fprintf(w, "| %s | %.0f | %.0f | **%.0f** | %.0f | %.0f | %.0f | %.1f | %d | %d | %d | %d | %d |\n",
			m.name(), c.evaluator, c.stores, c.cpu(), c.up, c.down, c.objects, c.bytes/1024,
			m.evaluator.Peak>>20, m.stores.Peak>>20,
			m.percentile(50).Milliseconds(), m.percentile(90).Milliseconds(), m.percentile(100).Milliseconds())
	}
}

// percentile is that of the slots' durations, the nearest rank.
func (m measurement) percentile(p int) time.Duration {
	sorted := slices.Sorted(slices.Values(m.walls))
	rank := (p*len(sorted) + 99) / 100
	return sorted[max(rank, 1)-1]
}

// machine says where and of what the figures are.
func machine() string {
	var parts []string
	parts = append(parts, fmt.Sprintf("%s, %d processors, %s", cpuModel(), runtime.NumCPU(), runtime.Version()))
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		parts = append(parts, "load average at the end "+strings.Join(strings.Fields(string(load))[:3], " "))
	}
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		parts = append(parts, "Tocsin "+strings.TrimSpace(string(out)))
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/prometheus/prometheus" || d.Path == "github.com/thanos-io/promql-engine" {
				parts = append(parts, strings.TrimPrefix(d.Path, "github.com/")+" "+d.Version)
			}
		}
	}
	return strings.Join(parts, "; ") + "."
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
