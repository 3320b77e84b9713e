// Package status is what a collector says of itself over HTTP: its targets and
// why others were dropped, its configuration, flags and build in the shape of
// Prometheus' API, a summary for whoever gathers from many collectors, and a
// page for people.
//
// It asks the scrape manager for every request, keeps nothing but the reasons
// why targets were dropped, and changes nothing. It is not Prometheus' own
// package, because that links the query engine and rules, a seventh of the
// collector. Handlers are safe for concurrent use.
package status

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/scrape"
)

// prefix is that of the API.
const prefix = "/api/v1"

// Scraper is a scrape manager.
type Scraper interface {
	ScrapePools() []string
	TargetsActive() map[string][]*scrape.Target
	TargetsDropped() map[string][]*scrape.Target
	TargetsDroppedCounts() map[string]int
	ScrapePoolConfig(pool string) (*config.ScrapeConfig, error)
}

// Deps are what a handler asks.
type Deps struct {
	// Scraper is an error before the collector runs.
	Scraper func() (Scraper, error)
	// Settings are shown without their secrets.
	Settings func() config.Config
	Refused  func() []ConfigError
	Flags    map[string]string
	// Runtime fills in what is not known of the process alone.
	Runtime func(*RuntimeInfo)
	Logger  *slog.Logger
}

// ConfigError is why a scrape config does not run as it is configured.
type ConfigError struct {
	// Pool is its job_name, empty if nobody knows which one it is.
	Pool  string `json:"pool"`
	Error string `json:"error"`
}

// Handler serves the API and the page. Make one with New.
type Handler struct {
	deps Deps

	mu      sync.Mutex
	reasons map[string]droppedPool
}

// New returns a handler.
func New(deps Deps) *Handler {
	return &Handler{deps: deps, reasons: map[string]droppedPool{}}
}

// Mux is where handlers are registered.
type Mux interface {
	Handle(pattern string, h http.Handler)
}

// Register registers everything.
func (h *Handler) Register(mux Mux) {
	for path, answer := range map[string]func(Scraper, *http.Request) (any, error){
		"/targets":            h.targets,
		"/targets/summary":    h.summary,
		"/targets/metadata":   targetMetadata,
		"/scrape_pools":       scrapePools,
		"/metadata":           metricMetadata,
		"/status/config":      h.config,
		"/status/flags":       h.flags,
		"/status/runtimeinfo": h.runtimeInfo,
		"/status/buildinfo":   buildInfo,
	} {
		mux.Handle("GET "+prefix+path, h.api(answer))
	}
	mux.Handle("GET /{$}", http.RedirectHandler("/targets", http.StatusFound))
	mux.Handle("GET /targets", http.HandlerFunc(h.page))
}

type response struct {
	Status    string `json:"status"`
	Data      any    `json:"data,omitempty"`
	ErrorType string `json:"errorType,omitempty"`
	Error     string `json:"error,omitempty"`
}

// api answers as Prometheus does. An error is that of the request.
func (h *Handler) api(answer func(Scraper, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := h.deps.Scraper()
		if err != nil {
			http.Error(w, fmt.Sprintf("not ready: %s", err), http.StatusServiceUnavailable)
			return
		}
		data, err := answer(s, r)
		if err != nil {
			h.write(w, http.StatusBadRequest, response{Status: "error", ErrorType: "bad_data", Error: err.Error()})
			return
		}
		h.write(w, http.StatusOK, response{Status: "success", Data: data})
	})
}

func (h *Handler) write(w http.ResponseWriter, code int, resp response) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(resp); err != nil {
		h.deps.Logger.Debug("answer not written", "err", err)
	}
}
