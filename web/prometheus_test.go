package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting"
	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

// comparedRules are two files that have everything which the API shows.
var comparedRules = map[string]string{
	"a.yml": `
groups:
- name: second
  interval: 30s
  limit: 9
  labels: {team: sre}
  rules:
  - {record: "sum:a", expr: sum(a), labels: {kind: recorded}}
  - {record: "sum:broken", expr: sum(broken)}
  - alert: Many
    expr: a > 0
    labels: {severity: page, what: "{{ $labels.pod }}"}
    annotations: {summary: "{{ $labels.pod }} is at {{ $value }}"}
  - {alert: Waits, expr: a > 1, for: 5m, keep_firing_for: 10m, labels: {severity: info}}
  - {alert: Never, expr: b > 0}
- name: first
  rules:
  - {alert: Broken, expr: broken > 0}
`,
	"b.yml": `
groups:
- name: first
  rules:
  - {record: "sum:a", expr: sum(a)}
- name: empty
  rules: []
`,
}

var errBroken = errors.New("it is broken")

// comparedQuery answers the expressions of comparedRules.
func comparedQuery(_ context.Context, expr string, _ time.Time) (promql.Vector, error) {
	switch {
	case strings.Contains(expr, "broken"):
		return nil, errBroken
	case strings.Contains(expr, "b"):
		return nil, nil
	}
	return promql.Vector{
		{Metric: labels.FromStrings("__name__", "a", "pod", "p-1"), F: 0.1},
		{Metric: labels.FromStrings("__name__", "a", "pod", "<p&2>", "z", "ü"), F: 1e30},
	}, nil
}

// TestTheAPIAnswersAsPrometheusDoes asks the API and that of Prometheus about
// the same rules in the same state, with every parameter that there is.
func TestTheAPIAnswersAsPrometheusDoes(t *testing.T) {
	t.Parallel()
	ts := time.Now().UTC().Truncate(time.Second)
	theirs := prometheusAPI(t, ts)
	deps := Deps{Cluster: fixedCluster{members: comparedMembers(t, ts)}, Logger: promslog.NewNopLogger()}
	files := url.Values{"file[]": {"a.yml"}}.Encode()
	for _, target := range []string{
		"alerts", "rules", "alertmanagers",
		"rules?type=alert", "rules?type=record", "rules?type=ALERT", "rules?type=other",
		"rules?rule_name[]=Many&rule_name[]=sum:a", "rules?rule_name[]=nope",
		"rules?rule_group[]=first", "rules?rule_group[]=first&rule_group[]=second", "rules?" + files, "rules?file[]=c.yml",
		`rules?match[]={severity="page"}`, `rules?match[]={severity="page"}&match[]={kind=~"rec.*"}`, `rules?match[]={severity!~"pa.e"}`,
		`rules?match[]={team="sre",severity=""}`, `rules?match[]={`, `rules?match[]={a=~".*"}`, `rules?match[]={what="{{ $labels.pod }}"}`,
		"rules?exclude_alerts=true", "rules?exclude_alerts=T", "rules?exclude_alerts=0", "rules?exclude_alerts=perhaps",
		"rules?group_limit=1", "rules?group_limit=2", "rules?group_limit=3", "rules?group_limit=100",
		"rules?group_limit=1&type=record", "rules?group_limit=1&rule_name[]=sum:a",
		"rules?group_limit=0", "rules?group_limit=-1", "rules?group_limit=many", "rules?group_next_token=abc",
		"rules?exclude_alerts=true&type=alert&rule_group[]=second&match[]={severity=\"info\"}",
	} {
		path, query, _ := strings.Cut(target, "?")
		params, err := url.ParseQuery(query)
		require.NoError(t, err, target)
		target := "/api/v1/" + path + "?" + params.Encode()
		want := httptest.NewRecorder()
		theirs.ServeHTTP(want, httptest.NewRequest(http.MethodGet, target, http.NoBody))
		got := serve(deps, http.MethodGet, target)
		require.Equal(t, want.Code, got.Code, "%s: %s", target, got.Body)
		require.Equal(t, comparable(t, want), comparable(t, got), target)
		require.Equal(t, want.Header().Get("Content-Type"), got.Header().Get("Content-Type"))
	}
}

// comparable is an answer without what only one of the two can know, with the
// types of these fields in its place.
func comparable(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var body map[string]any
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &body), rec.Body)
	strip(body)
	text, err := json.MarshalIndent(body, "", " ")
	require.NoError(t, err)
	return string(text)
}

func strip(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			strip(e)
		}
	case map[string]any:
		for _, name := range []string{"evaluationTime", "lastEvaluation", "groupNextToken"} {
			if field, ok := v[name]; ok {
				v[name] = fmt.Sprintf("%T", field)
			}
		}
		if alerts, ok := v["alerts"].([]any); ok {
			// Ours are sorted, Prometheus' come in any order.
			slices.SortFunc(alerts, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		delete(v, "key")
		delete(v, "owner")
		for _, e := range v {
			strip(e)
		}
	}
}

// comparedMembers share the groups of comparedRules.
func comparedMembers(t *testing.T, ts time.Time) []Local {
	t.Helper()
	templates := alerting.NewTemplates(alerting.TemplatesConfig{ExternalURL: &url.URL{}}, prometheus.NewRegistry())
	members := []Local{{Member: "a"}, {Member: "b"}}
	n := 0
	for file, content := range comparedRules {
		groups, errs := rule.Parse(file, []byte(content), rule.Options{})
		require.Empty(t, errs)
		for _, g := range groups {
			s := ruler.GroupStatus{Group: g, LastSlot: ts}
			for _, r := range g.Rules {
				s.Rules = append(s.Rules, comparedStatus(t, r, ts, templates))
			}
			members[n%2].Groups = append(members[n%2].Groups, s)
			n++
		}
	}
	return members
}

func comparedStatus(t *testing.T, r rule.Rule, ts time.Time, templates *alerting.Templates) ruler.RuleStatus {
	t.Helper()
	s := ruler.RuleStatus{Evaluated: ts}
	var vector promql.Vector
	vector, s.Err = comparedQuery(t.Context(), r.Expr.String(), ts)
	if r.Alert == "" || s.Err != nil {
		return s
	}
	def := alert.Rule{Name: r.Alert, For: r.For, KeepFiringFor: r.KeepFiringFor, Labels: r.Labels, Annotations: r.Annotations}
	result, err := alert.Step(def, alert.State{}, ts, vector, templates.Expander(t.Context(), alerting.RuleTemplates{Alert: r.Alert, Slot: ts}))
	require.NoError(t, err)
	s.Alerts = result.State
	return s
}

// loaded are groups that Prometheus evaluated.
type loaded []*rules.Group

func (l loaded) RuleGroups() []*rules.Group { return l }

func (l loaded) AlertingRules() []*rules.AlertingRule {
	var all []*rules.AlertingRule
	for _, g := range l {
		all = append(all, g.AlertingRules()...)
	}
	return all
}

func (loaded) Alertmanagers() []*url.URL        { return nil }
func (loaded) DroppedAlertmanagers() []*url.URL { return nil }

// nowhere is where Prometheus writes to.
type nowhere struct{}

func (nowhere) Appender(context.Context) storage.Appender { return nowhereAppender{} }

type nowhereAppender struct{ storage.Appender }

func (nowhereAppender) Append(storage.SeriesRef, labels.Labels, int64, float64) (storage.SeriesRef, error) {
	return 0, nil
}
func (nowhereAppender) SetOptions(*storage.AppendOptions) {}
func (nowhereAppender) Commit() error                     { return nil }
func (nowhereAppender) Rollback() error                   { return nil }

// prometheusAPI is Prometheus' own API over its own evaluation of comparedRules.
func prometheusAPI(t *testing.T, ts time.Time) http.Handler {
	t.Helper()
	manager := rules.NewManager(&rules.ManagerOptions{
		ExternalURL: &url.URL{}, QueryFunc: comparedQuery, Appendable: nowhere{}, Logger: promslog.NewNopLogger(),
		NotifyFunc:           func(context.Context, string, ...*rules.Alert) {},
		Context:              t.Context(),
		NameValidationScheme: model.UTF8Validation,
		GroupLoader:          inMemory{},
	})
	byKey, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, slices.Collect(maps.Keys(comparedRules))...)
	require.Empty(t, errs)
	var groups loaded
	for _, g := range byKey {
		rules.DefaultEvalIterationFunc(t.Context(), g, ts)
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b *rules.Group) int { return strings.Compare(a.File()+";"+a.Name(), b.File()+";"+b.Name()) })
	api := v1.NewAPI(nil, nil, nil, nil, nil, nil,
		func(context.Context) v1.AlertmanagerRetriever { return groups },
		func() config.Config { return config.DefaultConfig }, nil, v1.GlobalURLOptions{},
		func(next http.HandlerFunc) http.HandlerFunc { return next }, nil, "", false, promslog.NewNopLogger(),
		func(context.Context) v1.RulesRetriever { return groups },
		0, 0, 0, false, regexp.MustCompile("^$"), nil, nil, nil, nil,
		prometheus.NewRegistry(), prometheus.NewRegistry(), nil, false, nil, false, false, false, false, 0, false, false, nil, features.NewRegistry())
	router := route.New().WithPrefix("/api/v1")
	api.Register(router)
	return router
}

// inMemory loads comparedRules.
type inMemory struct{ rules.FileLoader }

func (inMemory) Load(file string, ignoreUnknown bool, names model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return rulefmt.Parse([]byte(comparedRules[file]), ignoreUnknown, names)
}
