package web

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	// graphRows bounds what the page of an expression shows.
	graphRows    = 1000
	graphTimeout = 30 * time.Second
)

// graphRow is a sample, or a scalar without labels.
type graphRow struct{ Labels, Value string }

// graphData is what the page of an expression shows.
type graphData struct {
	Expr  string
	Error string
	Rows  []graphRow
	// Left is the number of rows that are not shown.
	Left int
	At   time.Time
}

var graphPage = template.Must(template.New("graph").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tocsin</title>
<style>body{font:1rem sans-serif;margin:2rem}textarea{width:100%}td{padding:.2rem 1rem .2rem 0;font-family:monospace;vertical-align:top}.error{color:#b00}</style></head>
<body><form action="" method="get"><textarea name="g0.expr" rows="4" aria-label="Expression">{{ .Expr }}</textarea>
<button type="submit">Execute</button></form>
{{ if .Error }}<p class="error">{{ .Error }}</p>{{ else if .Expr }}<p>At {{ .At.Format "2006-01-02 15:04:05 MST" }}{{ if not .Rows }}: nothing{{ end }}</p>
<table>{{ range .Rows }}<tr><td>{{ .Labels }}</td><td>{{ .Value }}</td></tr>{{ end }}</table>
{{ if .Left }}<p>{{ .Left }} more are not shown.</p>{{ end }}{{ end }}</body></html>
`))

// graph is where the links in alerts lead: the expression that raised them, and
// what it returns now over all backends. The parameters are those of Prometheus'
// page of this name.
func (h *Handler) graph(w http.ResponseWriter, r *http.Request) {
	data := graphData{Expr: r.URL.Query().Get("g0.expr"), At: time.Now().UTC()}
	if data.Expr != "" {
		if err := h.evaluate(r.Context(), &data); err != nil {
			data.Error = err.Error()
		}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'")
	if err := graphPage.Execute(w, data); err != nil {
		h.deps.Logger.Debug("sending the page of an expression", "err", err)
	}
}

func (h *Handler) evaluate(ctx context.Context, data *graphData) error {
	ctx, cancel := context.WithTimeout(ctx, graphTimeout)
	defer cancel()
	q, err := h.deps.Engine.NewInstantQuery(ctx, h.deps.Queryable, nil, data.Expr, data.At)
	if err != nil {
		return err
	}
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return result.Err
	}
	data.Rows, data.Left = graphTable(result.Value)
	return nil
}

func graphTable(value parser.Value) (rows []graphRow, left int) {
	switch v := value.(type) {
	case promql.Vector:
		for _, s := range v[:min(len(v), graphRows)] {
			shown := fmt.Sprint(s.F)
			if s.H != nil {
				shown = s.H.String()
			}
			rows = append(rows, graphRow{s.Metric.String(), shown})
		}
		return rows, len(v) - len(rows)
	case promql.Matrix:
		for _, s := range v[:min(len(v), graphRows)] {
			rows = append(rows, graphRow{s.Metric.String(), fmt.Sprintf("%d samples", len(s.Floats)+len(s.Histograms))})
		}
		return rows, len(v) - len(rows)
	default:
		return []graphRow{{Value: value.String()}}, 0
	}
}
