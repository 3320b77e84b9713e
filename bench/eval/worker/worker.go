// Package worker is the processes of the evaluation benchmark: stores that
// answer queries and evaluators that ask them. Each is a process of its own, so
// that CPU time and memory belong to one of them, and does what its parent asks
// over net/rpc on its standard input and output.
//
// It never judges results and never decides what is measured: the parent does.
// A worker does one thing at a time; calls come one after the other.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/rpc"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
)

// Kind is what a worker does.
type Kind string

// The first two are stores, the others evaluators.
const (
	// Backend is Tocsin's embedded store, as `tocsin backend` runs it.
	Backend Kind = "backend"
	// Prometheus is a TSDB under Prometheus' engine and HTTP API.
	Prometheus Kind = "prometheus"
	// Native is Tocsin's evaluator over the pushdown protocol, all rules of a
	// slot in one batch.
	Native Kind = "native"
	// NativeOffsets is Native with a batch for every offset that the groups
	// have within their interval, as a single member evaluates them.
	NativeOffsets Kind = "native-offsets"
	// HTTP is Tocsin's evaluator over the Prometheus HTTP API.
	HTTP Kind = "http"
	// PerRule sends one instant query for every rule, and takes compressed
	// answers, which is what Go's HTTP client does unless told otherwise.
	PerRule Kind = "per-rule"
	// PerRulePlain is PerRule without compression.
	PerRulePlain Kind = "per-rule-plain"
	// RemoteRead is Prometheus' engine over remote read.
	RemoteRead Kind = "remote-read"
	// Manager is Prometheus' rule manager over a TSDB in its own process.
	Manager Kind = "manager"
)

// Endpoint is where a store answers.
type Endpoint struct {
	// Cluster is the only value of the label cluster in the store; empty if it
	// holds the whole fleet.
	Cluster string
	// HTTP is the base URL of the Prometheus API, GRPC the address of the
	// pushdown protocol, if there is one.
	HTTP, GRPC string
}

// Setup says what a worker shall become.
type Setup struct {
	Kind Kind
	// Dir is the TSDB directory of a store and of a Manager, Cluster the one
	// whose series are in it, if not all.
	Dir, Cluster string
	// Rules and Endpoints are what an evaluator evaluates and whom it asks.
	Rules     []dataset.Rule
	Endpoints []Endpoint
	// Profile, if set, is the file for the CPU profile of what is between
	// Begin and End; what goroutines of an evaluation do has the label
	// measured=slot.
	Profile string
}

// Usage is what a process has used.
type Usage struct {
	// CPU is user and system time.
	CPU time.Duration
	// Peak is the largest resident memory, in bytes.
	Peak int64
	// Objects and Bytes are what was allocated on the heap.
	Objects, Bytes uint64
}

// Slot is what became of one slot.
type Slot struct {
	Wall    time.Duration
	Usage   Usage
	Results []Result
}

// Result is the answer to one rule.
type Result struct {
	Samples []Sample
	// Err is empty if there is an answer.
	Err string
}

// Sample is one element of an instant vector.
type Sample struct {
	Labels string
	Value  float64
}

// evaluator answers all rules at an instant. What it returns turns the answers
// into results and is called after the clock was stopped.
type evaluator func(ctx context.Context, ts time.Time) (results func() []Result)

// Worker is the receiver of the calls.
type Worker struct {
	ctx      context.Context
	logger   *slog.Logger
	evaluate evaluator
	// stop ends what Setup started.
	stop    func() error
	profile string
	begun   Usage
	writing *os.File
}

// Serve does what comes in until there is no more, or ctx ends, then stops what
// it has started.
func Serve(ctx context.Context, in io.Reader, out io.Writer, logger *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &Worker{ctx: ctx, logger: logger, stop: func() error { return nil }}
	s := rpc.NewServer()
	if err := s.Register(w); err != nil {
		return err
	}
	s.ServeConn(pipe{in, out})
	return w.stop()
}

// pipe makes one connection of two streams. Whoever opened them closes them.
type pipe struct {
	io.Reader
	io.Writer
}

// Close implements io.Closer.
func (pipe) Close() error { return nil }

// Setup makes the worker what s says and tells where it can be asked, if it is
// a store. It returns when the worker is ready.
func (w *Worker) Setup(s Setup, at *Endpoint) (err error) {
	w.profile = s.Profile
	switch s.Kind {
	case Backend:
		*at, w.stop, err = startBackend(w.ctx, s, w.logger)
	case Prometheus:
		*at, w.stop, err = startPrometheus(w.ctx, s, w.logger)
	case Manager:
		w.evaluate, w.stop, err = newManager(s, w.logger)
	case Native, NativeOffsets, HTTP:
		w.evaluate, w.stop, err = newTocsin(s, w.logger)
	case PerRule, PerRulePlain:
		w.evaluate, err = newPerRule(s)
	case RemoteRead:
		w.evaluate, err = newRemoteRead(s, w.logger)
	default:
		err = fmt.Errorf("unknown kind of worker %q", s.Kind)
	}
	if w.stop == nil {
		w.stop = func() error { return nil }
	}
	return err
}

// Begin starts the measurement of the whole process.
func (w *Worker) Begin(_ int, _ *int) (err error) {
	if w.profile != "" {
		if w.writing, err = os.Create(w.profile); err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(w.writing); err != nil {
			return err
		}
	}
	if err := fresh(); err != nil {
		return err
	}
	w.begun, err = used()
	return err
}

// End says what the process has used since Begin.
func (w *Worker) End(_ int, u *Usage) error {
	now, err := used()
	if err != nil {
		return err
	}
	*u = now.since(w.begun)
	if w.writing == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err, w.writing = w.writing.Close(), nil
	return err
}

// Slot evaluates all rules at ts, in milliseconds. Its usage is that of the
// evaluation alone.
func (w *Worker) Slot(ts int64, s *Slot) error {
	if w.evaluate == nil {
		return errors.New("a store evaluates nothing")
	}
	if err := fresh(); err != nil {
		return err
	}
	before, err := used()
	if err != nil {
		return err
	}
	began := time.Now()
	var results func() []Result
	pprof.Do(w.ctx, pprof.Labels("measured", "slot"), func(ctx context.Context) {
		results = w.evaluate(ctx, time.UnixMilli(ts))
	})
	s.Wall = time.Since(began)
	after, err := used()
	if err != nil {
		return err
	}
	s.Usage = after.since(before)
	s.Results = results()
	return nil
}

// fresh gives back what memory it can and forgets the peak.
func fresh() error {
	debug.FreeOSMemory()
	return resetPeak()
}
