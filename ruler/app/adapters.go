package app

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/backfill"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
	"github.com/tocsin-rules/tocsin/web"
)

// maxWarnings bounds the warnings that are kept of one rule.
const maxWarnings = 10

// batchEvaluator is the evaluator as the ruler takes it.
type batchEvaluator struct{ e *evaluator.Evaluator }

var (
	_ ruler.Evaluator    = batchEvaluator{}
	_ backfill.Evaluator = batchEvaluator{}
)

func (b batchEvaluator) Evaluate(ctx context.Context, ts time.Time, queries []ruler.Query) []ruler.Result {
	recorded := make([][]promql.Sample, len(queries))
	for i, q := range queries {
		recorded[i] = q.Recorded
	}
	return answered(b.e.EvaluateOver(ctx, ts, asked(queries), recorded))
}

// EvaluateSteps implements backfill.Evaluator.
func (b batchEvaluator) EvaluateSteps(ctx context.Context, steps backfill.Steps, queries []ruler.Query) [][]ruler.Result {
	results := make([][]ruler.Result, len(queries))
	for i, r := range b.e.EvaluateSteps(ctx, evaluator.Steps(steps), asked(queries)) {
		results[i] = answered(r)
	}
	return results
}

func asked(queries []ruler.Query) []evaluator.Query {
	list := make([]evaluator.Query, len(queries))
	for i, q := range queries {
		list[i] = evaluator.Query{Name: q.Name, Expr: q.Expr, Scope: q.Scope, Partial: q.Partial}
	}
	return list
}

func answered(results []evaluator.Result) []ruler.Result {
	list := make([]ruler.Result, len(results))
	for i, r := range results {
		warnings, _ := r.Warnings.AsStrings("", maxWarnings, 0)
		list[i] = ruler.Result{
			Vector: r.Vector, Warnings: warnings, Partial: evaluator.Lacks(r.Warnings), Err: r.Err, Retryable: retryable(r.Err),
		}
	}
	return list
}

// retryable tells errors that may pass from those of the expression itself.
// A limit that is exceeded will be exceeded again at the same slot.
func retryable(err error) bool {
	var e *evaluator.Error
	if err == nil || !errors.As(err, &e) {
		return err != nil
	}
	return e.Kind != evaluator.KindUser && e.Kind != evaluator.KindLimit
}

// templates makes expanders whose queries see what the rule's group may see.
type templates struct {
	expand    *alerting.Templates
	evaluator *evaluator.Evaluator
}

var _ ruler.Templates = templates{}

func (t templates) Expander(ctx context.Context, g rule.Group, alertName string, slot time.Time) alert.Expander {
	return t.expand.Expander(ctx, alerting.RuleTemplates{
		Alert: alertName,
		Slot:  slot,
		Query: scopedQuery(g, alertName, t.evaluator.Evaluate),
	})
}

// scopedQuery answers the queries of a rule's templates within the tenancy of its
// group, at the slot itself: the query offset is the expression's alone, as in
// Prometheus.
func scopedQuery(
	g rule.Group, alertName string, evaluate func(context.Context, time.Time, []evaluator.Query) []evaluator.Result,
) template.QueryFunc {
	return func(ctx context.Context, text string, ts time.Time) (promql.Vector, error) {
		expr, err := parser.ParseExpr(text)
		if err != nil {
			return nil, err
		}
		if expr, err = plan.Scope(expr, g.Scope); err != nil {
			return nil, err
		}
		r := evaluate(ctx, ts, []evaluator.Query{{Name: g.Key + "/" + alertName, Expr: expr, Scope: g.Scope, Partial: g.Partial}})
		return r[0].Vector, r[0].Err
	}
}

// peerHandler answers other members.
type peerHandler struct{ a *app }

func (h peerHandler) Claim(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error) {
	return h.a.ruler.Claim(ctx, from, keys)
}

func (h peerHandler) Checkpoint(ctx context.Context, from string, states []handoff.GroupState) error {
	return h.a.ruler.Checkpoint(ctx, from, states)
}

func (h peerHandler) Status(_ context.Context, endpoint, query string) ([]byte, error) {
	parts, err := h.a.local().Answer(web.Question{Endpoint: endpoint, Query: query})
	if err != nil {
		return nil, err
	}
	return web.EncodeParts(parts)
}

// local is what this member knows by itself.
func (a *app) local() web.Local {
	l := web.Local{Member: a.opts.Name, Groups: a.ruler.Status()}
	l.Active, l.Dropped = a.sender.Alertmanagers()
	return l
}

func (h peerHandler) Describe(context.Context) ([]byte, error) {
	return json.Marshal(h.a.describe())
}

func (h peerHandler) Costs(context.Context) (map[uint64]uint64, error) { return h.a.costs(), nil }

// cluster asks all members.
type cluster struct{ a *app }

var _ web.Cluster = cluster{}

func (c cluster) Ask(ctx context.Context, q web.Question) ([]web.Part, map[string]error) {
	members := c.a.gossip.View().Members()
	answers := make([][]web.Part, len(members))
	errs := make([]error, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { answers[i], errs[i] = c.askMember(ctx, m, q) })
	}
	asked.Wait()
	failed := map[string]error{}
	for i, err := range errs {
		if err != nil {
			failed[members[i].Name] = err
		}
	}
	return slices.Concat(answers...), failed
}

func (c cluster) askMember(ctx context.Context, m sharding.Member, q web.Question) ([]web.Part, error) {
	if m.Name == c.a.opts.Name {
		return c.a.local().Answer(q)
	}
	encoded, err := c.a.rpcClient.Status(ctx, m.GRPCAddress, q.Endpoint, q.Query)
	if err != nil {
		return nil, err
	}
	return web.DecodeParts(encoded)
}
