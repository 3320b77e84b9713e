package status

import (
	"cmp"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/common/version"
)

// RuntimeInfo is what a process knows of itself, as Prometheus shows it.
type RuntimeInfo struct {
	StartTime           time.Time `json:"startTime"`
	CWD                 string    `json:"CWD"`
	Hostname            string    `json:"hostname"`
	ServerTime          time.Time `json:"serverTime"`
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"`
	CorruptionCount     int64     `json:"corruptionCount"`
	GoroutineCount      int       `json:"goroutineCount"`
	GOMAXPROCS          int       `json:"GOMAXPROCS"`
	GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
	GOGC                string    `json:"GOGC"`
	GODEBUG             string    `json:"GODEBUG"`
	StorageRetention    string    `json:"storageRetention"`
}

// started is when the process was, to a good part of a second.
var started = time.Now()

func (h *Handler) runtimeInfo(Scraper, *http.Request) (any, error) {
	// Of a directory or a name that nobody knows, nothing is shown.
	cwd, _ := os.Getwd()
	hostname, _ := os.Hostname()
	info := RuntimeInfo{
		StartTime:      started.UTC(),
		CWD:            cwd,
		Hostname:       hostname,
		ServerTime:     time.Now().UTC(),
		GoroutineCount: runtime.NumGoroutine(),
		GOMAXPROCS:     runtime.GOMAXPROCS(0),
		GOMEMLIMIT:     debug.SetMemoryLimit(-1),
		GOGC:           os.Getenv("GOGC"),
		GODEBUG:        os.Getenv("GODEBUG"),
	}
	h.deps.Runtime(&info)
	return info, nil
}

func buildInfo(Scraper, *http.Request) (any, error) {
	return map[string]string{
		"version":   version.Version,
		"revision":  version.GetRevision(),
		"branch":    version.Branch,
		"buildUser": version.BuildUser,
		"buildDate": version.BuildDate,
		"goVersion": cmp.Or(version.GoVersion, runtime.Version()),
	}, nil
}

func (h *Handler) config(Scraper, *http.Request) (any, error) {
	settings := h.deps.Settings()
	return map[string]string{"yaml": settings.String()}, nil
}

func (h *Handler) flags(Scraper, *http.Request) (any, error) { return h.deps.Flags, nil }
