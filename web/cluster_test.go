package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator/explain"
)

func TestTheStatusOfAMember(t *testing.T) {
	t.Parallel()
	status := MemberStatus{Member: "member-0", NotReady: "starting", Members: []string{"member-0"}, RuleErrors: []RuleError{}, FileErrors: []FileError{}}
	rec := serve(Deps{Status: func() MemberStatus { return status }, Logger: promslog.NewNopLogger()}, http.MethodGet, "/api/v1/status/tocsin")
	require.JSONEq(t, `{"status":"success","data":{"member":"member-0","ready":false,"notReady":"starting","members":["member-0"],
		"groups":0,"rules":0,"cost":0,"slotsEvaluated":0,"slotsMissed":0,"slotsBackfilled":0,"lagSeconds":0,"firing":0,"pending":0,
		"ruleErrors":[],"fileErrors":[]}}`, rec.Body.String())
}

func TestTheStatusOfTheCluster(t *testing.T) {
	t.Parallel()
	since := time.Unix(100, 0).UTC()
	c := fixedCluster{status: ClusterStatus{
		Member:  "a",
		Members: []ClusterMember{{Name: "b", State: "ready", Zone: "z", HTTPAddress: "h:1", GRPCAddress: "g:1", Version: 1, Error: "no answer in time"}},
		Groups:  []GroupPlace{{Key: "k", Rules: 2, Owner: "a", Successor: "b", Running: []GroupRun{{Member: "a", Since: since, From: "b"}}}},
	}}
	rec := serve(Deps{Cluster: c, Logger: promslog.NewNopLogger()}, http.MethodGet, "/api/v1/status/cluster")
	require.Equal(t, http.StatusOK, rec.Code)
	require.JSONEq(t, `{"status":"success","data":{"member":"a",
		"members":[{"name":"b","state":"ready","zone":"z","httpAddress":"h:1","grpcAddress":"g:1","version":1,"toldGroups":0,"toldCost":0,"error":"no answer in time"}],
		"groups":[{"key":"k","rules":2,"owner":"a","successor":"b","running":[
			{"member":"a","since":"1970-01-01T00:01:40Z","from":"b","lastSlot":"0001-01-01T00:00:00Z"}]}]}}`, rec.Body.String())
}

// onePlan knows one group.
type onePlan struct{ key string }

func (p onePlan) Plan(key string) (*explain.Report, error) {
	switch key {
	case p.key:
		return &explain.Report{Slot: time.Unix(100, 0).UTC(), Rules: []explain.RuleReport{{Group: key, Name: "r"}}}, nil
	case "broken":
		return nil, errors.New("it broke")
	}
	return nil, fmt.Errorf("%w: no group with the key %q", ErrNotFound, key)
}

func TestThePlanOfAGroup(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		query  string
		status int
		want   string
	}{
		"a group that is loaded": {"?key=file/a/g", http.StatusOK, `"rules":[{"group":"file/a/g","name":"r"`},
		"no key":                 {"", http.StatusBadRequest, `"errorType":"bad_data","error":"parameter \"key\" is missing`},
		"an unknown key":         {"?key=other", http.StatusNotFound, `"errorType":"not_found","error":"not found: no group with the key \"other\""`},
		"a fault":                {"?key=broken", http.StatusInternalServerError, `"errorType":"internal","error":"it broke"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := serve(Deps{Plans: onePlan{"file/a/g"}, Logger: promslog.NewNopLogger()}, http.MethodGet, "/api/v1/rules/plan"+tc.query)
			require.Equal(t, tc.status, rec.Code)
			require.Contains(t, rec.Body.String(), tc.want)
		})
	}
}

func TestDrainAndReloadSayWhetherTheySucceeded(t *testing.T) {
	t.Parallel()
	var fault error
	act := func(context.Context) error { return fault }
	deps := Deps{Drain: act, Reload: act, Logger: promslog.NewNopLogger()}
	rec := serve(deps, http.MethodPost, "/-/drain")
	require.Equal(t, http.StatusOK, rec.Code)
	require.Equal(t, "Drained.\n", rec.Body.String())
	require.Equal(t, http.StatusOK, serve(deps, http.MethodPost, "/-/reload").Code)
	require.Equal(t, http.StatusMethodNotAllowed, serve(deps, http.MethodGet, "/-/drain").Code)

	fault = errors.New("2 groups still run here")
	rec = serve(deps, http.MethodPost, "/-/drain")
	require.Equal(t, http.StatusServiceUnavailable, rec.Code)
	require.Equal(t, "drain: 2 groups still run here\n", rec.Body.String())
	require.Equal(t, http.StatusInternalServerError, serve(deps, http.MethodPost, "/-/reload").Code)
}
