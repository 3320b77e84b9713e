package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/tocsin-rules/tocsin/evaluator/plan"
)

// answer is the body of a successful call.
type answer struct {
	Status string `json:"status"`
	// IsPartial is what VictoriaMetrics says when storage nodes are away.
	IsPartial bool     `json:"isPartial"`
	Warnings  []string `json:"warnings"`
	Infos     []string `json:"infos"`
	Data      struct {
		ResultType parser.ValueType `json:"resultType"`
		Result     json.RawMessage  `json:"result"`
	} `json:"data"`
}

// series is one element of a vector or a matrix.
type series struct {
	Metric map[string]string `json:"metric"`
	Value  *point            `json:"value"`
	Values []point           `json:"values"`

	Histogram  json.RawMessage `json:"histogram"`
	Histograms json.RawMessage `json:"histograms"`
}

// point is [seconds, "value"].
type point struct {
	t int64
	v float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *point) UnmarshalJSON(b []byte) error {
	ts, value, ok := bytes.Cut(bytes.Trim(b, "[] \n\t\r"), []byte{','})
	if !ok {
		return fmt.Errorf("%s is not a pair of a time and a value", b)
	}
	t, err := strconv.ParseFloat(string(bytes.TrimSpace(ts)), 64)
	if err != nil || math.IsNaN(t) || math.Abs(t) > math.MaxInt64/1000 {
		return fmt.Errorf("%s is not a time in seconds", ts)
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return fmt.Errorf("%s is not a sample value", value)
	}
	if p.v, err = strconv.ParseFloat(text, 64); err != nil {
		return fmt.Errorf("%q is not a sample value", text)
	}
	p.t = int64(math.Round(t * 1000))
	return nil
}

// decodeAnswer decodes strictly: anything that the fragment cannot have asked
// for is an error of the backend.
func decodeAnswer(body []byte, w plan.Window) Result {
	var a answer
	if err := decodeOne(body, &a); err != nil {
		return Result{Err: errorf(KindBackend, "the answer is not JSON of the Prometheus API: %w", err)}
	}
	switch {
	case a.Status != "success":
		return Result{Err: errorf(KindBackend, "the answer has status %q in spite of its HTTP status", a.Status)}
	case a.IsPartial:
		return Result{Err: errorf(KindBackend, "the answer is partial: a part of the backend is away")}
	}
	var r Result
	if err := addRemarks(&r.Warnings, a.Warnings); err != nil {
		return Result{Err: err}
	}
	addAnnotations(&r.Warnings, a.Infos)
	value, err := a.value(w)
	switch {
	case errors.Is(err, ErrHistogram):
		return Result{Err: &Error{Kind: KindBackend, Err: err}}
	case err != nil:
		return Result{Err: errorf(KindBackend, "the answer is malformed: %w", err)}
	}
	r.Value = value
	return r
}

// decodeOne refuses anything after the value.
func decodeOne(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the end")
	}
	return nil
}

func (a answer) value(w plan.Window) (parser.Value, error) {
	switch {
	case a.Data.ResultType == parser.ValueTypeMatrix:
		return a.matrix(w)
	case w.Step != 0:
		return nil, fmt.Errorf("result type %q of a range query", a.Data.ResultType)
	case a.Data.ResultType == parser.ValueTypeVector:
		return a.vector(w)
	case a.Data.ResultType == parser.ValueTypeScalar:
		var p point
		if err := p.UnmarshalJSON(a.Data.Result); err != nil {
			return nil, err
		}
		return promql.Scalar{T: w.Start, V: p.v}, nil
	}
	return nil, fmt.Errorf("unknown result type %q", a.Data.ResultType)
}

func (a answer) list() ([]series, error) {
	var list []series
	err := json.Unmarshal(a.Data.Result, &list)
	if err == nil && list == nil {
		err = errors.New("the result is null")
	}
	return list, err
}

func (a answer) vector(w plan.Window) (parser.Value, error) {
	list, err := a.list()
	if err != nil {
		return nil, err
	}
	vector := make(promql.Vector, 0, len(list))
	for _, s := range list {
		metric := labels.FromMap(s.Metric)
		switch {
		case s.Histogram != nil:
			return nil, ErrHistogram
		case s.Value == nil:
			return nil, fmt.Errorf("series %s has no value", metric)
		case s.Value.t != w.Start:
			return nil, fmt.Errorf("series %s has a sample at %d ms, asked for %d ms", metric, s.Value.t, w.Start)
		}
		vector = append(vector, promql.Sample{Metric: metric, T: w.Start, F: s.Value.v})
	}
	return vector, nil
}

func (a answer) matrix(w plan.Window) (parser.Value, error) {
	list, err := a.list()
	if err != nil {
		return nil, err
	}
	matrix := make(promql.Matrix, 0, len(list))
	for _, s := range list {
		metric := labels.FromMap(s.Metric)
		if s.Histograms != nil {
			return nil, ErrHistogram
		}
		floats := make([]promql.FPoint, 0, len(s.Values))
		for _, p := range s.Values {
			floats = append(floats, promql.FPoint{T: p.t, F: p.v})
		}
		one := promql.Series{Metric: metric, Floats: floats}
		if err := checkSeries(one, w); err != nil {
			return nil, err
		}
		matrix = append(matrix, one)
	}
	return matrix, nil
}

// checkSeries makes sure that samples are where the fragment can have asked
// for them: on the grid of a range query, and in order anyway.
func checkSeries(s promql.Series, w plan.Window) error {
	check := func(i int, t, before int64) error {
		onGrid := t >= w.Start && t <= w.End && (w.Step == 0 || (t-w.Start)%w.Step == 0)
		if (w.Step != 0 && !onGrid) || (i > 0 && t <= before) {
			return fmt.Errorf("series %s has a sample at %d ms where none can be", s.Metric, t)
		}
		return nil
	}
	for i, p := range s.Floats {
		if err := check(i, p.T, s.Floats[max(i-1, 0)].T); err != nil {
			return err
		}
	}
	for i, p := range s.Histograms {
		if err := check(i, p.T, s.Histograms[max(i-1, 0)].T); err != nil {
			return err
		}
	}
	return nil
}
