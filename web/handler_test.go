package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/alerting/alert"
	"github.com/tocsin-rules/tocsin/ruler"
	"github.com/tocsin-rules/tocsin/ruler/rule"
)

type fixedCluster struct {
	groups []Group
	failed map[string]error
	status ClusterStatus
}

func (c fixedCluster) Groups(context.Context) ([]Group, map[string]error) {
	return append([]Group(nil), c.groups...), c.failed
}

func (c fixedCluster) Status(context.Context) ClusterStatus { return c.status }

func expr(t *testing.T, text string) parser.Expr {
	t.Helper()
	e, err := parser.ParseExpr(text)
	require.NoError(t, err)
	return e
}

// firing is an alert that fires, made by the state machine itself.
func firing(t *testing.T, name string) alert.Alert {
	t.Helper()
	result, err := alert.Step(alert.Rule{Name: name}, alert.State{}, time.Unix(100, 0).UTC(),
		promql.Vector{{Metric: labels.FromStrings("pod", "p"), F: 3}}, func(text string, _ promql.Sample) (string, error) { return text, nil })
	require.NoError(t, err)
	return result.State.Alerts()[0]
}

// testMux permits everything.
type testMux struct{ *http.ServeMux }

func (m testMux) HandleLifecycle(path string, h http.Handler) { m.Handle("POST "+path, h) }

func sampleStatus(t *testing.T) ruler.GroupStatus {
	t.Helper()
	slot := time.Unix(100, 0).UTC()
	return ruler.GroupStatus{
		Group: rule.Group{Key: "file/a/g", Name: "g", File: "a.yml", Interval: 15 * time.Second, Limit: 7, Rules: []rule.Rule{
			{Record: "r", Expr: expr(t, "sum(x)"), Labels: labels.FromStrings("team", "a")},
			{Alert: "Down", Expr: expr(t, "up == 0"), For: time.Minute, Labels: labels.FromStrings("severity", "page")},
		}},
		LastSlot: slot,
		Duration: 20 * time.Millisecond,
		Rules: []ruler.RuleStatus{
			{Evaluated: slot, Err: errors.New("backend east is away")},
			{Evaluated: slot, State: alert.Firing, Alerts: []alert.Alert{firing(t, "Down")}},
		},
	}
}

func get(t *testing.T, c Cluster, target string) (int, map[string]any) {
	t.Helper()
	rec := serve(Deps{Cluster: c, Logger: promslog.NewNopLogger()}, http.MethodGet, target)
	var body map[string]any
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &body), rec.Body)
	return rec.Code, body
}

func serve(deps Deps, method, target string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	New(deps).Register(testMux{mux})
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest(method, target, http.NoBody))
	return rec
}

// What goes from member to member is what the API shows, so it has to survive
// the trip.
func TestGroupsSurviveEncoding(t *testing.T) {
	t.Parallel()
	groups := Groups("member-0", []ruler.GroupStatus{sampleStatus(t)})
	body, err := json.Marshal(groups)
	require.NoError(t, err)
	var decoded []Group
	require.NoError(t, json.Unmarshal(body, &decoded))
	again, err := json.Marshal(decoded)
	require.NoError(t, err)
	require.JSONEq(t, string(body), string(again))
}

func TestRulesHavePrometheusShape(t *testing.T) {
	t.Parallel()
	status, body := get(t, fixedCluster{groups: Groups("member-0", []ruler.GroupStatus{sampleStatus(t)})}, "/api/v1/rules")
	require.Equal(t, http.StatusOK, status)
	text, err := json.Marshal(body)
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"success","data":{"groups":[{
		"name":"g","file":"a.yml","interval":15,"limit":7,"evaluationTime":0.02,"lastEvaluation":"1970-01-01T00:01:40Z",
		"key":"file/a/g","owner":"member-0","rules":[
		{"type":"recording","name":"r","query":"sum(x)","labels":{"team":"a"},"health":"err","lastError":"backend east is away",
		 "evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40Z"},
		{"type":"alerting","name":"Down","query":"up == 0","duration":60,"keepFiringFor":0,"labels":{"severity":"page"},"annotations":{},
		 "state":"firing","health":"ok","evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40Z",
		 "alerts":[{"labels":{"alertname":"Down","pod":"p"},"annotations":{},"state":"firing","activeAt":"1970-01-01T00:01:40Z","value":"3e+00"}]}
	]}]}}`, string(text))
}

func TestParametersOfRules(t *testing.T) {
	t.Parallel()
	c := fixedCluster{groups: Groups("member-0", []ruler.GroupStatus{sampleStatus(t)})}
	for query, want := range map[string]int{
		"":                        2,
		"type=alert":              1,
		"type=record":             1,
		"rule_name[]=r":           1,
		"rule_name[]=other":       0,
		"rule_group[]=g":          2,
		"rule_group[]=h":          0,
		"file[]=a.yml":            2,
		"file[]=b.yml":            0,
		`match[]={team="a"}`:      1,
		`match[]={team=~"a|b",}`:  1,
		`match[]={severity!=""}`:  1,
		`match[]={severity="no"}`: 0,
	} {
		parsed, err := url.ParseQuery(query)
		require.NoError(t, err)
		_, body := get(t, c, "/api/v1/rules?"+parsed.Encode())
		n := 0
		for _, g := range body["data"].(map[string]any)["groups"].([]any) {
			n += len(g.(map[string]any)["rules"].([]any))
		}
		require.Equal(t, want, n, query)
	}
	_, body := get(t, c, "/api/v1/rules?exclude_alerts=true&type=alert")
	rules := body["data"].(map[string]any)["groups"].([]any)[0].(map[string]any)["rules"].([]any)
	require.Nil(t, rules[0].(map[string]any)["alerts"])
	for _, bad := range []string{"type=x", "exclude_alerts=maybe", "match[]=}", "match[]={a=~\".*\"}"} {
		parsed, err := url.ParseQuery(bad)
		require.NoError(t, err)
		status, body := get(t, c, "/api/v1/rules?"+parsed.Encode())
		require.Equal(t, http.StatusBadRequest, status, bad)
		require.Equal(t, "bad_data", body["errorType"])
	}
}

func TestAMemberThatDoesNotAnswerIsNamed(t *testing.T) {
	t.Parallel()
	c := fixedCluster{failed: map[string]error{"member-2": errors.New("no answer in time")}}
	status, body := get(t, c, "/api/v1/alerts")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, []any{`member "member-2" did not answer, its groups are missing: no answer in time`}, body["warnings"])
	require.Equal(t, map[string]any{"alerts": []any{}}, body["data"])
}

// A group that changes hands may be shown by two members for a moment.
func TestAGroupIsShownOnceByWhoEvaluatedItLast(t *testing.T) {
	t.Parallel()
	old := sampleStatus(t)
	newer := sampleStatus(t)
	newer.LastSlot = newer.LastSlot.Add(time.Minute)
	groups := append(Groups("old", []ruler.GroupStatus{old}), Groups("new", []ruler.GroupStatus{newer})...)
	merged := mergeGroups(groups)
	require.Len(t, merged, 1)
	require.Equal(t, "new", merged[0].Owner)
}
