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

// fixedCluster is members that know what they are given.
type fixedCluster struct {
	members []Local
	failed  map[string]error
	status  ClusterStatus
}

// Ask sends answers through their encoding, as between members.
func (c fixedCluster) Ask(_ context.Context, q Question) ([]Part, map[string]error) {
	failed := maps.Clone(c.failed)
	var all []Part
	for _, m := range c.members {
		parts, err := m.Answer(q)
		var encoded []byte
		if err == nil {
			encoded, err = EncodeParts(parts)
		}
		if err == nil {
			parts, err = DecodeParts(encoded)
		}
		if err != nil {
			failed[m.Member] = err
		}
		all = append(all, parts...)
	}
	return all, failed
}

func (c fixedCluster) Status(context.Context) ClusterStatus { return c.status }

func expr(t *testing.T, text string) parser.Expr {
	t.Helper()
	e, err := parser.ParseExpr(text)
	require.NoError(t, err)
	return e
}

// firing is the state of a rule with an alert that fires.
func firing(t *testing.T, name string) alert.State {
	t.Helper()
	result, err := alert.Step(alert.Rule{Name: name}, alert.State{}, time.Unix(100, 0).UTC(),
		promql.Vector{{Metric: labels.FromStrings("pod", "p"), F: 3}}, func(text string, _ promql.Sample) (string, error) { return text, nil })
	require.NoError(t, err)
	return result.State
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
			{Evaluated: slot, Warnings: []string{"backend west is away"}, Alerts: firing(t, "Down")},
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

func TestRulesHavePrometheusShape(t *testing.T) {
	t.Parallel()
	status, body := get(t, fixedCluster{members: []Local{{Member: "member-0", Groups: []ruler.GroupStatus{sampleStatus(t)}}}}, "/api/v1/rules")
	require.Equal(t, http.StatusOK, status)
	text, err := json.Marshal(body)
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"success","data":{"groups":[{
		"name":"g","file":"a.yml","interval":15,"limit":7,"evaluationTime":0.02,"lastEvaluation":"1970-01-01T00:01:40Z",
		"key":"file/a/g","owner":"member-0","rules":[
		{"type":"recording","name":"r","query":"sum(x)","labels":{"team":"a"},"health":"err","lastError":"backend east is away",
		 "evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40Z"},
		{"type":"alerting","name":"Down","query":"up == 0","duration":60,"keepFiringFor":0,"labels":{"severity":"page"},"annotations":{},
		 "state":"firing","health":"ok","warnings":["backend west is away"],"evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40Z",
		 "alerts":[{"labels":{"alertname":"Down","pod":"p"},"annotations":{},"state":"firing","activeAt":"1970-01-01T00:01:40Z","value":"3e+00"}]}
	]}]}}`, string(text))
}

func TestParametersOfRules(t *testing.T) {
	t.Parallel()
	c := fixedCluster{members: []Local{{Member: "member-0", Groups: []ruler.GroupStatus{sampleStatus(t)}}}}
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
	for _, bad := range []string{"type=x", "exclude_alerts=maybe", "match[]=}", "match[]={a=~\".*\"}", "group_limit=0", "group_limit=x", "group_next_token=x", "group_limit=1&group_next_token=x"} {
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
	require.Equal(t, []any{`member "member-2" did not answer, what it alone knows is missing: no answer in time`}, body["warnings"])
	require.Equal(t, map[string]any{"alerts": []any{}}, body["data"])
}

// A group that changes hands may be shown by two members for a moment.
func TestAGroupIsShownOnceByWhoEvaluatedItLast(t *testing.T) {
	t.Parallel()
	old := sampleStatus(t)
	newer := sampleStatus(t)
	newer.LastSlot = newer.LastSlot.Add(time.Minute)
	c := fixedCluster{members: []Local{
		{Member: "new", Groups: []ruler.GroupStatus{newer}},
		{Member: "old", Groups: []ruler.GroupStatus{old}},
	}}
	_, body := get(t, c, "/api/v1/rules")
	groups := body["data"].(map[string]any)["groups"].([]any)
	require.Len(t, groups, 1)
	require.Equal(t, "new", groups[0].(map[string]any)["owner"])
	_, body = get(t, c, "/api/v1/alerts")
	require.Len(t, body["data"].(map[string]any)["alerts"], 1)
}

func TestAlertmanagersOfAllMembers(t *testing.T) {
	t.Parallel()
	parse := func(text string) *url.URL {
		u, err := url.Parse(text)
		require.NoError(t, err)
		return u
	}
	c := fixedCluster{members: []Local{
		{Member: "b", Active: []*url.URL{parse("http://am-2/api/v2/alerts"), parse("http://am-1/api/v2/alerts")}},
		{Member: "a", Active: []*url.URL{parse("http://am-1/api/v2/alerts")}, Dropped: []*url.URL{parse("http://am-3/api/v2/alerts")}},
	}}
	rec := serve(Deps{Cluster: c, Logger: promslog.NewNopLogger()}, http.MethodGet, "/api/v1/alertmanagers")
	require.JSONEq(t, `{"status":"success","data":{
		"activeAlertmanagers":[{"url":"http://am-1/api/v2/alerts"},{"url":"http://am-2/api/v2/alerts"}],
		"droppedAlertmanagers":[{"url":"http://am-3/api/v2/alerts"}]}}`, rec.Body.String())
}

// TestPagesAreTheWholeList turns pages of every size over groups that three
// members run; some groups have the same name and file.
func TestPagesAreTheWholeList(t *testing.T) {
	t.Parallel()
	c := fixedCluster{members: make([]Local, 3)}
	for i := range 20 {
		g := sampleStatus(t)
		g.Group.Key, g.Group.Name, g.Group.File = fmt.Sprint("key-", i), fmt.Sprint("group-", i%7), fmt.Sprint("file-", i%3)
		m := &c.members[i%3]
		m.Groups = append(m.Groups, g)
	}
	keys := func(query string) (keys []string, next string) {
		_, body := get(t, c, "/api/v1/rules?"+query)
		data := body["data"].(map[string]any)
		for _, g := range data["groups"].([]any) {
			keys = append(keys, g.(map[string]any)["key"].(string))
		}
		next, _ = data["groupNextToken"].(string)
		return keys, next
	}
	all, next := keys("")
	require.Len(t, all, 20)
	require.Empty(t, next)
	for limit := 1; limit <= 21; limit++ {
		var turned []string
		for token := ""; ; {
			var page []string
			page, token = keys(fmt.Sprintf("exclude_alerts=true&group_limit=%d&group_next_token=%s", limit, token))
			require.LessOrEqual(t, len(page), limit)
			turned = append(turned, page...)
			if token == "" {
				break
			}
		}
		require.Equal(t, all, turned, "pages of %d", limit)
	}
	// The group at which the next page begins is gone by then.
	_, next = keys("group_limit=1")
	for i, m := range c.members {
		c.members[i].Groups = slices.DeleteFunc(m.Groups, func(g ruler.GroupStatus) bool { return g.Group.Key == all[1] })
	}
	rest, _ := keys("group_limit=100&group_next_token=" + next)
	require.Equal(t, all[2:], rest)
}
