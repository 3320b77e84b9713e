package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"

	"github.com/tocsin-rules/tocsin/bench/eval/dataset"
)

// newManager is Prometheus' rule manager over a TSDB in this process. It does
// all that it always does but write: samples are dropped, as the other variants
// write none.
func newManager(s Setup, logger *slog.Logger) (evaluator, func() error, error) {
	db, err := openTSDB(s.Dir, logger)
	if err != nil {
		return nil, nil, err
	}
	seen := &answers{byExpr: map[string]answer{}, query: rules.EngineQueryFunc(newEngine(logger), db)}
	m := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:   seen.ask,
		NotifyFunc:  func(context.Context, string, ...*rules.Alert) {},
		Appendable:  nowhere{},
		Queryable:   db,
		Logger:      logger,
		Registerer:  prometheus.NewRegistry(),
		GroupLoader: loader(s.Rules),
	})
	loaded, errs := m.LoadGroups(dataset.Interval*time.Millisecond, labels.EmptyLabels(), "", nil, false, "rules")
	if len(errs) > 0 {
		return nil, nil, errors.Join(append(errs, db.Close())...)
	}
	groups := sorted(loaded)
	return func(ctx context.Context, ts time.Time) func() []Result {
		inParallel(len(groups), func(i int) { groups[i].Eval(ctx, ts) })
		return func() []Result { return seen.results(s.Rules) }
	}, db.Close, nil
}

func sorted(loaded map[string]*rules.Group) []*rules.Group {
	groups := make([]*rules.Group, 0, len(loaded))
	for _, g := range loaded {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *rules.Group) int { return strings.Compare(a.Name(), b.Name()) })
	return groups
}

// answers remembers what the manager was told.
type answers struct {
	query  rules.QueryFunc
	mu     sync.Mutex
	byExpr map[string]answer
}

type answer struct {
	vector promql.Vector
	err    error
}

func (a *answers) ask(ctx context.Context, expr string, ts time.Time) (promql.Vector, error) {
	v, err := a.query(ctx, expr, ts)
	a.mu.Lock()
	defer a.mu.Unlock()
	// The manager goes on to change what it gets.
	a.byExpr[expr] = answer{slices.Clone(v), err}
	return v, err
}

// results are the answers for all rules; they are forgotten.
func (a *answers) results(all []dataset.Rule) []Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	results := make([]Result, len(all))
	for i, r := range all {
		got, ok := a.byExpr[r.Expr]
		if !ok {
			got.err = errors.New("the manager did not evaluate the rule")
		}
		results[i] = result(got.vector, got.err)
	}
	clear(a.byExpr)
	return results
}

// loader gives the manager rules that are in no file.
type loader []dataset.Rule

var _ rules.GroupLoader = loader{}

// Load implements rules.GroupLoader.
func (l loader) Load(string, bool, model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	var all rulefmt.RuleGroups
	for _, r := range l {
		last := len(all.Groups) - 1
		if last < 0 || all.Groups[last].Name != r.Group {
			all.Groups = append(all.Groups, rulefmt.RuleGroup{Name: r.Group})
			last++
		}
		all.Groups[last].Rules = append(all.Groups[last].Rules, rulefmt.Rule{Record: r.Record, Alert: r.Alert, Expr: r.Expr})
	}
	return &all, nil
}

// Parse implements rules.GroupLoader.
func (loader) Parse(query string) (parser.Expr, error) { return parser.ParseExpr(query) }

// nowhere is where samples go that nobody wants.
type nowhere struct{}

// Appender implements storage.Appendable.
func (nowhere) Appender(context.Context) storage.Appender { return dropped{} }

// dropped takes samples and keeps none. The manager appends nothing but floats
// and histograms.
type dropped struct{ storage.Appender }

// Append implements storage.Appender.
func (dropped) Append(storage.SeriesRef, labels.Labels, int64, float64) (storage.SeriesRef, error) {
	return 0, nil
}

// AppendHistogram implements storage.Appender.
func (dropped) AppendHistogram(storage.SeriesRef, labels.Labels, int64, *histogram.Histogram, *histogram.FloatHistogram) (storage.SeriesRef, error) {
	return 0, nil
}

// SetOptions implements storage.Appender.
func (dropped) SetOptions(*storage.AppendOptions) {}

// Commit implements storage.Appender.
func (dropped) Commit() error { return nil }

// Rollback implements storage.Appender.
func (dropped) Rollback() error { return nil }
