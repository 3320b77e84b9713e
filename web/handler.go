// Package web is the HTTP API of a rule-evaluator: any member answers for the
// whole cluster, in the shape of Prometheus' API.
//
// Each member encodes what it alone knows (Local); the one that is asked puts
// the parts of all together. The package evaluates nothing and talks to other
// members over the interface Cluster only. Handlers are safe for concurrent use.
package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/httputil"
)

// Cluster is how a member asks all members, itself included.
type Cluster interface {
	// Ask returns the parts of every member that answered, and the errors of
	// those that did not, by name.
	Ask(ctx context.Context, q Question) ([]Part, map[string]error)
	// Status returns who is in the cluster and who evaluates what.
	Status(ctx context.Context) ClusterStatus
}

// Deps are what a handler asks.
type Deps struct {
	Cluster Cluster
	Plans   Plans
	// Status is what a member says of itself.
	Status func() MemberStatus
	// Reload reads configuration and rules again.
	Reload func(context.Context) error
	// Drain hands all groups over and returns when that is done.
	Drain func(context.Context) error
	// Engine and Queryable answer for the page of an expression.
	Engine    promql.QueryEngine
	Queryable storage.Queryable
	Logger    *slog.Logger
}

// Handler serves the parts of the API that are about rules and the cluster.
type Handler struct {
	deps Deps
}

// New returns a handler.
func New(deps Deps) *Handler { return &Handler{deps: deps} }

// Mux is where handlers are registered.
type Mux interface {
	Handle(pattern string, h http.Handler)
	// HandleLifecycle is for what changes the process.
	HandleLifecycle(path string, h http.Handler)
}

// Register adds the endpoints to a mux.
func (h *Handler) Register(mux Mux) {
	for path, serve := range map[string]http.HandlerFunc{
		"/api/v1/rules":          h.rules,
		"/api/v1/rules/plan":     h.servePlan,
		"/api/v1/alerts":         h.alerts,
		"/api/v1/alertmanagers":  h.alertmanagers,
		"/api/v1/status/tocsin":  h.serveStatus,
		"/api/v1/status/cluster": h.serveCluster,
	} {
		mux.Handle("GET "+path, httputil.CompressionHandler{Handler: serve})
	}
	mux.Handle("GET /graph", http.HandlerFunc(h.graph))
	mux.HandleLifecycle("/-/reload", http.HandlerFunc(h.serveReload))
	mux.HandleLifecycle("/-/drain", http.HandlerFunc(h.serveDrain))
}

func (h *Handler) rules(w http.ResponseWriter, r *http.Request) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err == nil {
		_, err = parseFilter(params)
	}
	if err != nil {
		h.refuse(w, err)
		return
	}
	page, err := parsePage(params)
	if err != nil {
		h.refuse(w, err)
		return
	}
	parts, warnings := h.ask(r.Context(), Question{Endpoint: rulesEndpoint, Query: r.URL.RawQuery})
	groups, next := page.cut(parts)
	h.send(w, joined{lists: []list{{"groups", groups}}, nextToken: next, warnings: warnings})
}

func (h *Handler) alerts(w http.ResponseWriter, r *http.Request) {
	parts, warnings := h.ask(r.Context(), Question{Endpoint: alertsEndpoint})
	h.send(w, joined{lists: []list{{"alerts", parts}}, warnings: warnings})
}

// alertmanagers are those of all members, which may discover different ones.
func (h *Handler) alertmanagers(w http.ResponseWriter, r *http.Request) {
	parts, warnings := h.ask(r.Context(), Question{Endpoint: alertmanagersEndpoint})
	dropped := slices.IndexFunc(parts, func(p Part) bool { return p.file == droppedList })
	if dropped < 0 {
		dropped = len(parts)
	}
	h.send(w, joined{
		lists:    []list{{"activeAlertmanagers", parts[:dropped]}, {"droppedAlertmanagers", parts[dropped:]}},
		warnings: warnings,
	})
}

func (h *Handler) serveStatus(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, http.StatusOK, response{Status: "success", Data: h.deps.Status()})
}

func (h *Handler) serveReload(w http.ResponseWriter, r *http.Request) {
	if err := h.deps.Reload(r.Context()); err != nil {
		http.Error(w, fmt.Sprintf("failed to reload config: %s", err), http.StatusInternalServerError)
	}
}

// ask asks all members; whoever does not answer is named in a warning.
func (h *Handler) ask(ctx context.Context, q Question) ([]Part, []string) {
	parts, failed := h.deps.Cluster.Ask(ctx, q)
	var warnings []string
	for member, err := range failed {
		warnings = append(warnings, fmt.Sprintf("member %q did not answer, what it alone knows is missing: %s", member, err))
	}
	sort.Strings(warnings)
	return merge(parts), warnings
}

func (h *Handler) refuse(w http.ResponseWriter, err error) {
	h.answer(w, http.StatusBadRequest, response{Status: "error", ErrorType: "bad_data", Error: err.Error()})
}

// response is the envelope of Prometheus' API.
type response struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

func (h *Handler) answer(w http.ResponseWriter, status int, r response) {
	body, err := json.Marshal(r)
	if err != nil {
		h.deps.Logger.Error("encoding API answer", "err", err)
		http.Error(w, "encode answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		h.deps.Logger.Debug("sending API answer", "err", err)
	}
}
