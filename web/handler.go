package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sort"

	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Cluster is how a member asks all members, itself included.
type Cluster interface {
	// Groups returns the groups of every member that answered, and the
	// errors of those that did not, by name.
	Groups(ctx context.Context) ([]Group, map[string]error)
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
	Drain  func(context.Context) error
	Logger *slog.Logger
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
		"/api/v1/status/tocsin":  h.serveStatus,
		"/api/v1/status/cluster": h.serveCluster,
	} {
		mux.Handle("GET "+path, serve)
	}
	mux.HandleLifecycle("/-/reload", http.HandlerFunc(h.serveReload))
	mux.HandleLifecycle("/-/drain", http.HandlerFunc(h.serveDrain))
}

func (h *Handler) rules(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r)
	if err != nil {
		h.answer(w, http.StatusBadRequest, response{Status: "error", ErrorType: "bad_data", Error: err.Error()})
		return
	}
	groups, warnings := h.gather(r.Context())
	h.answer(w, http.StatusOK, response{
		Status:   "success",
		Data:     map[string]any{"groups": f.apply(groups)},
		Warnings: warnings,
	})
}

func (h *Handler) alerts(w http.ResponseWriter, r *http.Request) {
	groups, warnings := h.gather(r.Context())
	h.answer(w, http.StatusOK, response{
		Status:   "success",
		Data:     v1.AlertDiscovery{Alerts: activeAlerts(groups)},
		Warnings: warnings,
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

// gather asks all members; whoever does not answer is named in a warning.
func (h *Handler) gather(ctx context.Context) ([]Group, []string) {
	groups, failed := h.deps.Cluster.Groups(ctx)
	var warnings []string
	for member, err := range failed {
		warnings = append(warnings, fmt.Sprintf("member %q did not answer, its groups are missing: %s", member, err))
	}
	sort.Strings(warnings)
	return mergeGroups(groups), warnings
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
