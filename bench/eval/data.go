package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
)

// epoch is the time of the first sample; what is compared with another run
// should not depend on the day.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// history is the number of samples before the first slot; the longest window
// of a rule is half of it.
const history = 40

// seriesPerCommit bounds what one transaction of the TSDB holds.
const seriesPerCommit = 1000

// data is the TSDBs on disk: the whole fleet in one and each cluster in one.
type data struct {
	dir    string
	series int
}

func (d data) whole() string                { return filepath.Join(d.dir, "whole") }
func (d data) part(cluster string) string   { return filepath.Join(d.dir, cluster) }
func (d data) directories() (dirs []string) { return append(d.parts(), d.whole()) }

// slotAt is the time of the i-th slot.
func slotAt(i int) int64 { return epoch.UnixMilli() + int64(history+i)*dataset.Interval }

func (d data) parts() (dirs []string) {
	for _, c := range dataset.Clusters() {
		dirs = append(dirs, d.part(c))
	}
	return dirs
}

// writeData writes all series with as many samples as slots+1 slots need.
func writeData(ctx context.Context, dir string, f dataset.Fleet, slots int, progress io.Writer) (data, error) {
	d := data{dir: dir}
	w := &writer{samples: history + slots + 1, tables: map[string]*table{}}
	err := w.open(d.directories())
	if err == nil {
		err = f.Each(func(s dataset.Series) error {
			d.series++
			if d.series%20_000 == 0 {
				fmt.Fprintf(progress, "eval: %d of %d series written\n", d.series, f.Series)
			}
			return errors.Join(ctx.Err(), w.write(s, d.whole(), d.part(s.Labels.Get("cluster"))))
		})
	}
	return d, errors.Join(err, w.close())
}

// writer appends to several TSDBs.
type writer struct {
	samples int
	tables  map[string]*table
}

// table is an open TSDB and its transaction in progress.
type table struct {
	db      *tsdb.DB
	app     storage.Appender
	pending int
}

func (w *writer) open(dirs []string) error {
	for _, dir := range dirs {
		db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, tsdb.DefaultOptions(), tsdb.NewDBStats())
		if err != nil {
			return fmt.Errorf("open %q: %w", dir, err)
		}
		w.tables[dir] = &table{db: db, app: db.Appender(context.Background())}
	}
	return nil
}

// write appends a series to the TSDBs in dirs.
func (w *writer) write(s dataset.Series, dirs ...string) error {
	if s.Native() {
		hs := s.Histograms(w.samples)
		return w.each(dirs, func(app storage.Appender) (err error) {
			var ref storage.SeriesRef
			for i, h := range hs {
				if ref, err = app.AppendHistogram(ref, s.Labels, scraped(i), h, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	vs := s.Floats(w.samples)
	return w.each(dirs, func(app storage.Appender) (err error) {
		var ref storage.SeriesRef
		for i, v := range vs {
			if ref, err = app.Append(ref, s.Labels, scraped(i), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// scraped is when the i-th sample was scraped: a little before the slot.
func scraped(i int) int64 { return epoch.UnixMilli() + int64(i)*dataset.Interval - 7_000 }

func (w *writer) each(dirs []string, write func(storage.Appender) error) error {
	for _, dir := range dirs {
		t := w.tables[dir]
		if err := write(t.app); err != nil {
			return fmt.Errorf("write to %q: %w", dir, err)
		}
		if t.pending++; t.pending < seriesPerCommit {
			continue
		}
		if err := t.app.Commit(); err != nil {
			return fmt.Errorf("commit to %q: %w", dir, err)
		}
		t.app, t.pending = t.db.Appender(context.Background()), 0
	}
	return nil
}

func (w *writer) close() error {
	var errs []error
	for _, t := range w.tables {
		errs = append(errs, t.app.Commit(), t.db.Close())
	}
	return errors.Join(errs...)
}
