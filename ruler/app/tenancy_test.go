package app

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/backend"
	"github.com/tocsin-rules/tocsin/backend/engine"
	"github.com/tocsin-rules/tocsin/evaluator"
	"github.com/tocsin-rules/tocsin/evaluator/plan"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
	"github.com/tocsin-rules/tocsin/ruler/write"
	"github.com/tocsin-rules/tocsin/sharding"
	"github.com/tocsin-rules/tocsin/sharding/handoff"
)

var (
	tenancySeed  = flag.Uint64("tenancy.seed", 1, "seed of generated rules")
	tenancyRules = flag.Int("tenancy.rules", 300, "number of generated rules a tenant")
)

// namespaces are the tenants; all are in one cluster.
var namespaces = []string{"shop", "bank"}

// secretOf is in a label of every series of a tenant, and nowhere else.
func secretOf(namespace string) string { return "SECRET-of-" + namespace }

// hostile writes rules that try to see and to touch what is another tenant's.
type hostile struct{ *rand.Rand }

func (h hostile) pick(options ...string) string { return options[h.IntN(len(options))] }

func (h hostile) selector() string {
	return h.pick("x", "y", `x{job="a"}`, `{__name__=~".+"}`, `{secret=~"SECRET.*"}`, `x{namespace=~".*"}`, `x{namespace!=""}`,
		`{namespace=~"shop|bank"}`, `x{namespace="bank"}`, `x{namespace!="shop"}`, `y{cluster=~".+"}`, `ALERTS`, `{secret!=""}`, "none")
}

func (h hostile) expr(depth int) string {
	if depth == 0 {
		return h.selector()
	}
	e := h.expr(depth - 1)
	return h.pick(
		e, fmt.Sprintf("sum by (namespace, secret) (%s)", e), fmt.Sprintf("max without (namespace) (%s)", e),
		fmt.Sprintf("(%s or %s)", e, h.selector()), fmt.Sprintf("(%s * on () group_left (secret, namespace) topk(1, %s))", e, h.selector()),
		fmt.Sprintf(`label_replace(%s, "namespace", "%s", "", "")`, e, h.pick("bank", "shop", "")),
		fmt.Sprintf(`label_replace(%s, "__name__", "z", "", "")`, e),
		fmt.Sprintf(`label_join(%s, "cluster", "-", "job", "namespace")`, e),
		fmt.Sprintf(`count_values("namespace", %s)`, e), fmt.Sprintf("absent(%s)", e), fmt.Sprintf("vector(scalar(%s))", e),
		fmt.Sprintf("max_over_time((%s)[1m:10s])", e), fmt.Sprintf("last_over_time((%s)[1m:10s] @ end())", e), fmt.Sprintf("(%s offset 1s)", e),
		"vector(1)",
	)
}

func (h hostile) template() string {
	return h.pick(
		"{{ $labels.namespace }}/{{ $value }}", "bank", "", "{{ .ExternalLabels }}",
		"{{ range query `"+h.expr(h.IntN(2))+"` }}{{ .Labels }} {{ end }}",
		"{{ with query `"+h.selector()+"` }}{{ . | first | label `secret` }}{{ end }}",
		"{{ query (printf `x{namespace=%q}` `bank`) | first | value }}",
		"{{ range query `{__name__=~\".+\"}` | sortByLabel `secret` }}{{ .Labels.secret }}{{ end }}",
	)
}

type ruleText struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

func (h hostile) rule(namespace string, n int) ruleText {
	r := ruleText{Expr: h.expr(h.IntN(4)), Labels: map[string]string{}}
	for range h.IntN(3) {
		r.Labels[h.pick("job", "team", "secret", "exported_namespace", "alertname", "Namespace")] = h.pick("a", "bank")
	}
	if h.IntN(20) == 0 {
		r.Labels[h.pick("namespace", "cluster")] = h.pick("bank", "shop", "{{ $labels.secret }}")
	}
	if h.IntN(2) == 0 {
		r.Record = fmt.Sprintf("of_%s_%d", namespace, n)
		return r
	}
	r.Alert = fmt.Sprintf("Of_%s_%d", namespace, n)
	r.Labels["templated"] = h.template()
	r.Annotations = map[string]string{"summary": h.template()}
	return r
}

// groups are what the generated rules of a tenant are parsed to, each in a
// group of its own. Those that contradict their tenant are refused.
func (h hostile) groups(t *testing.T, namespace string) (groups []rule.Group) {
	opts := rule.Options{Clusters: []labels.Labels{labels.FromStrings("cluster", "east")}, Scope: plan.Scope}
	for n := range *tenancyRules {
		manifest := map[string]any{
			"apiVersion": "monitoring.googleapis.com/v1", "kind": "Rules",
			"metadata": map[string]any{"name": fmt.Sprintf("r%d", n), "namespace": namespace},
			"spec":     map[string]any{"groups": []any{map[string]any{"name": "g", "interval": "1s", "rules": []ruleText{h.rule(namespace, n)}}}},
		}
		text, err := yaml.Marshal(manifest)
		require.NoError(t, err)
		parsed, _ := rule.Parse(fmt.Sprintf("%s-%d.yml", namespace, n), text, opts)
		groups = append(groups, parsed...)
	}
	require.Greater(t, len(groups), *tenancyRules/3)
	return groups
}

// outbox takes what the ruler writes and sends, and looks for what is not the
// tenant's own.
type outbox struct {
	mu    sync.Mutex
	bad   []string
	wrote map[string]int // samples, notifications and markers, by tenant
}

// check looks at labels that belong to a rule, whose name tells the tenant.
func (o *outbox) check(kind, name string, ls labels.Labels, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	owner := namespaces[0]
	if strings.Contains(name, namespaces[1]) {
		owner = namespaces[1]
	}
	o.wrote[kind+" "+owner]++
	if ls.Get("namespace") != owner || ls.Get("cluster") != "east" {
		o.bad = append(o.bad, fmt.Sprintf("%s of %s leaves its tenant: %s", kind, name, ls))
	}
	for _, other := range namespaces {
		if other != owner && strings.Contains(ls.String()+text, secretOf(other)) {
			o.bad = append(o.bad, fmt.Sprintf("%s of %s shows what is not its own: %s %s", kind, name, ls, text))
		}
	}
}

// Write implements ruler.Writer.
func (o *outbox) Write(_ context.Context, units []write.Unit) []write.Result {
	for _, u := range units {
		for _, s := range u {
			kind, name := "sample", s.Metric.Get("__name__")+s.Metric.Get("rule_group")
			if strings.HasPrefix(name, "ALERTS") {
				kind, name = "alert series", s.Metric.Get("alertname")
			}
			if value.IsStaleNaN(s.F) {
				kind = "marker"
			}
			o.check(kind, name, s.Metric, "")
		}
	}
	return make([]write.Result, len(units))
}

// Where implements ruler.Writer: all of it goes to one backend.
func (o *outbox) Where(units []write.Unit) []string { return make([]string, len(units)) }

// Send implements ruler.Notifier.
func (o *outbox) Send(_ string, notifications ...alert.Notification) {
	for _, n := range notifications {
		o.check("notification", n.Labels.Get("alertname"), n.Labels, n.Annotations.String())
	}
}

// nobody is all the other members there are.
type nobody struct{}

// Claim implements ruler.Peers.
func (nobody) Claim(context.Context, string, []string) ([]handoff.GroupState, error) { return nil, nil }

// Checkpoint implements ruler.Peers.
func (nobody) Checkpoint(context.Context, string, []handoff.GroupState) error { return nil }

// startTenants runs a backend with series of both tenants, which differ in
// nothing but the tenant and its secret.
func startTenants(t *testing.T) *evaluator.Evaluator {
	logger, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	store, err := backend.NewStore(backend.StoreConfig{
		Path: t.TempDir(), Partition: backend.Partition{Labels: labels.FromStrings("cluster", "east")},
	}, reg, logger)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	require.Eventually(t, func() bool { return store.Ready() == nil }, time.Minute, time.Millisecond)
	app := store.Appender(ctx)
	for _, namespace := range namespaces {
		for _, name := range []string{"x", "y", "ALERTS"} {
			for _, job := range []string{"a", "b"} {
				ls := labels.FromStrings("__name__", name, "job", job, "namespace", namespace, "secret", secretOf(namespace))
				for ts := time.Now().Add(-2 * time.Minute); ts.Before(time.Now().Add(time.Minute)); ts = ts.Add(10 * time.Second) {
					_, err := app.Append(0, ls, ts.UnixMilli(), 1)
					require.NoError(t, err)
				}
			}
		}
	}
	require.NoError(t, app.Commit())
	api := httptest.NewServer(backend.NewAPI(backend.APIConfig{}, store, engine.New(engine.Config{}, reg, logger), reg, logger))
	t.Cleanup(api.Close)
	u, err := url.Parse(api.URL)
	require.NoError(t, err)
	cfg := evaluator.DefaultConfig()
	cfg.Backends = []evaluator.BackendConfig{{
		Name: "east", PartitionLabels: map[string]string{"cluster": "east"},
		URL: config.URL{URL: u}, HTTPClientConfig: config.DefaultHTTPClientConfig,
	}}
	e, err := evaluator.New(cfg, logger, prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// TestTenantsTouchTheirOwn runs generated rules of two tenants, templates
// included, and looks at everything that is recorded and sent. To run more:
//
//	go test ./ruler/app -run TestTenantsTouchTheirOwn -tenancy.seed=SEED -tenancy.rules=N
func TestTenantsTouchTheirOwn(t *testing.T) {
	t.Parallel()
	h := hostile{rand.New(rand.NewPCG(*tenancySeed, 0))}
	groups := slices.Concat(h.groups(t, namespaces[0]), h.groups(t, namespaces[1]))
	e, box := startTenants(t), &outbox{wrote: map[string]int{}}
	cfg := ruler.DefaultConfig()
	cfg.Member = "a"
	r, err := ruler.New(cfg, ruler.Deps{
		Evaluator: batchEvaluator{e}, Writer: box, Notifier: box, Peers: nobody{}, History: e.Queryable(),
		Templates: templates{alerting.NewTemplates(alerting.TemplatesConfig{ExternalURL: &url.URL{}}, prometheus.NewRegistry()), e},
		Logger:    slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	r.SetGroups(groups)
	r.SetView(sharding.NewView([]sharding.Member{{Name: "a", State: sharding.Ready, Weight: 1}}))
	evaluated := func() bool {
		statuses := r.Status()
		return len(statuses) == len(groups) && !slices.ContainsFunc(statuses, func(s ruler.GroupStatus) bool { return s.LastSlot.IsZero() })
	}
	require.Eventually(t, evaluated, 2*time.Minute, 50*time.Millisecond, "seed %d: not all groups are evaluated", *tenancySeed)
	box.mu.Lock()
	defer box.mu.Unlock()
	require.Empty(t, box.bad[:min(len(box.bad), 5)], "seed %d", *tenancySeed)
	t.Logf("%d rules wrote and sent %v", len(groups), box.wrote)
	for _, kind := range []string{"sample", "alert series", "notification"} {
		for _, namespace := range namespaces {
			require.Greater(t, box.wrote[kind+" "+namespace], 20, "%s of %s", kind, namespace)
		}
	}
}
