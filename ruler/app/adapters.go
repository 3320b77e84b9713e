package app

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
	"github.com/tocsin-rules/tocsin/web"
)

// batchEvaluator is the evaluator as the ruler takes it.
type batchEvaluator struct{ e *evaluator.Evaluator }

var _ ruler.Evaluator = batchEvaluator{}

func (b batchEvaluator) Evaluate(ctx context.Context, ts time.Time, queries []ruler.Query) []ruler.Result {
	asked := make([]evaluator.Query, len(queries))
	for i, q := range queries {
		asked[i] = evaluator.Query{Name: q.Name, Expr: q.Expr, Scope: q.Scope}
	}
	results := make([]ruler.Result, len(queries))
	for i, r := range b.e.Evaluate(ctx, ts, asked) {
		results[i] = ruler.Result{Vector: r.Vector, Err: r.Err, Retryable: retryable(r.Err)}
	}
	return results
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
type templates struct{ a *app }

var _ ruler.Templates = templates{}

func (t templates) Expander(ctx context.Context, g rule.Group, alertName string, slot time.Time) alert.Expander {
	return t.a.templates.Expander(ctx, alerting.RuleTemplates{
		Alert: alertName,
		Slot:  slot,
		Query: func(ctx context.Context, text string, ts time.Time) (promql.Vector, error) {
			expr, err := parser.ParseExpr(text)
			if err != nil {
				return nil, err
			}
			if expr, err = plan.Scope(expr, g.Scope); err != nil {
				return nil, err
			}
			r := t.a.evaluator.Evaluate(ctx, ts.Add(-g.QueryOffset), []evaluator.Query{{Name: g.Key + "/" + alertName, Expr: expr}})
			return r[0].Vector, r[0].Err
		},
	})
}

// peerHandler answers other members.
type peerHandler struct{ a *app }

func (h peerHandler) Claim(ctx context.Context, from string, keys []string) ([]handoff.GroupState, error) {
	return h.a.ruler.Claim(ctx, from, keys)
}

func (h peerHandler) Checkpoint(ctx context.Context, from string, states []handoff.GroupState) error {
	return h.a.ruler.Checkpoint(ctx, from, states)
}

func (h peerHandler) Status(context.Context) ([]byte, error) {
	return json.Marshal(web.Groups(h.a.opts.Name, h.a.ruler.Status()))
}

func (h peerHandler) Describe(context.Context) ([]byte, error) {
	return json.Marshal(h.a.describe())
}

func (h peerHandler) Costs(context.Context) (map[uint64]uint64, error) { return h.a.costs(), nil }

// cluster asks all members for their groups.
type cluster struct{ a *app }

var _ web.Cluster = cluster{}

func (c cluster) Groups(ctx context.Context) ([]web.Group, map[string]error) {
	groups := web.Groups(c.a.opts.Name, c.a.ruler.Status())
	failed := map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range c.a.gossip.View().Members() {
		if m.Name == c.a.opts.Name {
			continue
		}
		wg.Go(func() {
			_, body, err := c.a.rpcClient.Status(ctx, m.GRPCAddress)
			var theirs []web.Group
			if err == nil {
				err = json.Unmarshal(body, &theirs)
			}
			mu.Lock()
			defer mu.Unlock()
			groups = append(groups, theirs...)
			if err != nil {
				failed[m.Name] = err
			}
		})
	}
	wg.Wait()
	return groups, failed
}

// alertmanagers are those that were discovered, for Prometheus' API.
type alertmanagers struct{ s *alerting.Sender }

func (a alertmanagers) Alertmanagers() []*url.URL {
	active, _ := a.s.Alertmanagers()
	return active
}

func (a alertmanagers) DroppedAlertmanagers() []*url.URL {
	_, dropped := a.s.Alertmanagers()
	return dropped
}
