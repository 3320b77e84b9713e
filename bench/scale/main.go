// Command scale runs three rule-evaluators on many rule groups over a backend
// that answers at once, and reports what the evaluators themselves cost: slots
// missed, lag, CPU and memory. Each member is a process of its own, this program
// again; gossip, handoff, checkpoints, planning, the native protocol and remote
// write are the real ones, over loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

type options struct {
	members, groups, rules, heavy int
	interval, duration            time.Duration
	profiles                      string
}

// rulesOf is the number of rules of a group.
func (o options) rulesOf(group int) int {
	if group < o.heavy {
		return heavyFactor * o.rules
	}
	return o.rules
}

// allRules is the number of rules of all groups.
func (o options) allRules() int { return o.rules * (o.groups + (heavyFactor-1)*o.heavy) }

const heavyFactor = 30

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := kingpin.New("scale", "Runs rule-evaluators on many rules over a backend that answers at once.")
	var o options
	run := app.Command("run", "Run a cluster and report.").Default()
	run.Flag("members", "Rule-evaluators.").Default("3").IntVar(&o.members)
	run.Flag("groups", "Rule groups.").Default("10000").IntVar(&o.groups)
	run.Flag("rules", "Rules of a group: recording and alerting ones in turn.").Default("10").IntVar(&o.rules)
	run.Flag("heavy", "Groups among them that have thirty times as many rules.").Default("0").IntVar(&o.heavy)
	run.Flag("interval", "Evaluation interval.").Default("30s").DurationVar(&o.interval)
	run.Flag("duration", "How long to measure, from when every group has run.").Default("3m").DurationVar(&o.duration)
	run.Flag("profiles", "Directory for a CPU and a heap profile of the first member.").StringVar(&o.profiles)
	var m memberOptions
	member := app.Command("member", "Be a member; run starts these.").Hidden()
	member.Flag("config", "Configuration file.").StringVar(&m.config)
	member.Flag("name", "Name.").StringVar(&m.name)
	member.Flag("address", "HTTP, gRPC and gossip address.").StringsVar(&m.addresses)
	member.Flag("peer", "Gossip address of another member.").StringsVar(&m.peers)
	var err error
	switch kingpin.MustParse(app.Parse(os.Args[1:])) {
	case run.FullCommand():
		err = scale(ctx, o)
	case member.FullCommand():
		err = m.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func scale(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "tocsin-scale-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := startBackend(o.interval)
	if err != nil {
		return err
	}
	defer b.stop()
	c, err := startCluster(ctx, o, dir, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := c.awaitFirstSlots(ctx, o); err != nil {
		return err
	}
	r, err := measure(ctx, o, c, b)
	if err != nil {
		return err
	}
	r.write(os.Stdout, o)
	if r.missed > 0 {
		return fmt.Errorf("%d slots were missed", r.missed)
	}
	return nil
}
