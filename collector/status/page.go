package status

import (
	"html/template"
	"net/http"
)

// maxShown bounds the targets on the page; the API has all of them.
const maxShown = 1000

type pageData struct {
	NotReady string
	Refused  []ConfigError
	Pools    []PoolSummary
	// Targets are the active ones of a pool.
	Targets map[string][]Target
	// Left is the number of targets that are not shown.
	Left int
}

var targetsPage = template.Must(template.New("targets").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tocsin collector</title>
<style>body{font:1rem sans-serif;margin:2rem}td,th{padding:.2rem 1rem .2rem 0;text-align:left;vertical-align:top}td{font-family:monospace}.error{color:#b00}.up{color:#070}</style></head>
<body><h1>Targets</h1>
{{ if .NotReady }}<p class="error">{{ .NotReady }}</p>{{ end }}
{{ range .Refused }}<p class="error">Not as configured: {{ .Pool }}: {{ .Error }}</p>{{ end }}
{{ range .Pools }}<h2>{{ .Name }}</h2>
<p>{{ .Active }} active, {{ .Unhealthy }} not up{{ range .Dropped }}; {{ .Count }} dropped by {{ .Reason }}{{ end }}</p>
{{ with index $.Targets .Name }}<table><tr><th>State</th><th>Endpoint</th><th>Labels</th><th>Last scrape</th><th>Took</th><th>Error</th></tr>
{{ range . }}<tr><td class="{{ if eq .Health "up" }}up{{ else }}error{{ end }}">{{ .Health }}</td><td>{{ .ScrapeURL }}</td><td>{{ .Labels }}</td>
<td>{{ if .LastScrape.IsZero }}never{{ else }}{{ .LastScrape.UTC.Format "15:04:05 MST" }}{{ end }}</td><td>{{ printf "%.3fs" .LastScrapeDuration }}</td><td class="error">{{ .LastError }}</td></tr>
{{ end }}</table>{{ end }}{{ end }}
{{ if .Left }}<p>{{ .Left }} more are not shown; <a href="/api/v1/targets">/api/v1/targets</a> has all.</p>{{ end }}</body></html>
`))

// page shows the targets to people.
func (h *Handler) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if err := targetsPage.Execute(w, h.pageData()); err != nil {
		h.deps.Logger.Debug("page not written", "err", err)
	}
}

func (h *Handler) pageData() pageData {
	s, err := h.deps.Scraper()
	if err != nil {
		return pageData{NotReady: err.Error()}
	}
	summary := h.summarize(s)
	data := pageData{Refused: summary.ConfigErrors, Pools: summary.Pools, Targets: map[string][]Target{}}
	for i, t := range activeTargets(s, func(string) bool { return true }) {
		if i < maxShown {
			data.Targets[t.ScrapePool] = append(data.Targets[t.ScrapePool], t)
		} else {
			data.Left++
		}
	}
	return data
}
