// Package up runs the whole system on one machine, each process on its own:
// backends, Alertmanager, collectors and rule evaluators, which are the
// running executable again with a sub-command. It chooses their ports, writes
// their configuration, keeps them running, and shows how they are.
//
// It never evaluates, stores or scrapes anything itself, and listens on
// loopback only. Run starts all goroutines and waits for them; the deciding
// parts (options to layout, layout to files and arguments, state to text) are
// plain functions of values.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/common/promslog"
)

// Run starts the system, shows it on out, and stops it when ctx ends. It
// returns nil then, and an error if the system can't start; children that
// exit later are restarted.
func Run(ctx context.Context, o Options, out io.Writer) (err error) {
	r, err := o.parse()
	if err != nil {
		return err
	}
	dir, err := openDataDir(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	l := layout{request: r}
	if err := checkPorts(l.ports()); err != nil {
		return err
	}
	probe := newProber()
	if err := probe.existing(ctx, r); err != nil {
		return err
	}
	l.node = probe.nodeExporter(ctx)
	if err := dir.prepare(l); err != nil {
		return err
	}
	logger, closeLog, err := openLog(dir.dirs, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the running executable: %w", err)
	}
	s := newSystem(l, dir.dirs, l.tiers(dir.dirs, executable), logger)
	return s.run(ctx, newDisplay(out))
}

// openLog returns the logger of up itself: its file is beside those of its
// children, since the terminal shows the status.
func openLog(d dirs, r request) (*slog.Logger, func() error, error) {
	f, err := os.OpenFile(d.log("up"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	cfg := &promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Writer: f}
	if err := errors.Join(cfg.Level.Set(r.logLevel), cfg.Format.Set(r.logFormat)); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return promslog.New(cfg), f.Close, nil
}
