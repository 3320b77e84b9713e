// Command collector measures what a node agent costs: Tocsin's collector,
// Prometheus in agent mode and, where it is installed, vmagent scrape the same
// targets at the same time and write to the same receiver, which counts what
// arrives.
//
// The agents are real processes; targets and receiver are this one. It judges
// nothing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

type options struct {
	interval, warmup, duration time.Duration
	out, prometheus, collector string
}

// scenario is one node.
type scenario struct {
	pods, series int
	// churn is the share of pods that are replaced in a minute.
	churn float64
}

func (s scenario) String() string {
	text := fmt.Sprintf("%d pods × %d series", s.pods, s.series)
	if s.churn > 0 {
		text += fmt.Sprintf(", %.0f %% of the pods replaced every minute", s.churn*100)
	}
	return text
}

var scenarios = map[string]scenario{
	"example": {pods: 30, series: 1000},
	"dense":   {pods: 100, series: 1000},
	"heavy":   {pods: 30, series: 10_000, churn: 0.1},
}

func main() {
	var o options
	var names []string
	app := kingpin.New("collector", "Measures node agents side by side.")
	app.Flag("interval", "Scrape interval.").Default("30s").DurationVar(&o.interval)
	app.Flag("warmup", "How long the agents run before the measurement.").Default("1m").DurationVar(&o.warmup)
	app.Flag("duration", "How long to measure each scenario.").Default("5m").DurationVar(&o.duration)
	app.Flag("out", "File for the report.").Default("/dev/stdout").StringVar(&o.out)
	app.Flag("prometheus", "Binary of Prometheus; built from tools/prometheus if empty.").StringVar(&o.prometheus)
	app.Flag("collector", "Binary of the collector; built if empty.").StringVar(&o.collector)
	app.Arg("scenario", "example, dense or heavy; all without.").Default("example", "dense", "heavy").EnumsVar(&names, "example", "dense", "heavy")
	kingpin.MustParse(app.Parse(os.Args[1:]))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o, names); err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, o options, names []string) error {
	dir, err := os.MkdirTemp("", "tocsin-collector-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	kinds, err := programs(ctx, o, dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Node agents side by side\n\nMade on %s with `go run ./bench/collector --interval %s --warmup %s --duration %s %s`, %d cores.\n",
		time.Now().Format(time.DateOnly), o.interval, o.warmup, o.duration, strings.Join(names, " "), runtime.NumCPU())
	measured := map[string][]figures{}
	for _, name := range names {
		n := &node{options: o, scenario: scenarios[name], dir: dir}
		if measured[name], err = n.measure(ctx, kinds); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s", n.scenario, table(measured[name]))
	}
	b.WriteString(perSeries(measured["example"], measured["dense"]))
	return os.WriteFile(o.out, []byte(b.String()), 0o600)
}
