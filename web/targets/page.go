package targets

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxTargets is the size of a page, unless a smaller one is asked for.
const maxTargets = 10_000

// page is the part of all targets that was asked for.
type page struct {
	// query goes to the collectors.
	query url.Values
	limit int
	from  position
}

// position is where a page begins: at a collector, after some of its targets.
type position struct {
	collector string
	shown     int
}

func (p position) token() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s %d", p.collector, p.shown))
}

func parseToken(token string) (position, error) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return position{}, errors.New("target_next_token is none of this cluster's")
	}
	collector, count, _ := strings.Cut(string(text), " ")
	shown, err := strconv.Atoi(count)
	if err != nil || shown < 0 {
		return position{}, errors.New("target_next_token is none of this cluster's")
	}
	return position{collector: collector, shown: shown}, nil
}

// parsePage reads target_limit and target_next_token, and Prometheus' own
// parameters.
func parsePage(params url.Values) (page, error) {
	p := page{query: url.Values{}, limit: maxTargets}
	for _, name := range []string{"state", "scrapePool"} {
		if params.Has(name) {
			p.query.Set(name, params.Get(name))
		}
	}
	var err error
	if limit := params.Get("target_limit"); limit != "" {
		if p.limit, err = strconv.Atoi(limit); err != nil || p.limit < 1 || p.limit > maxTargets {
			return page{}, fmt.Errorf("target_limit must be a number from 1 to %d", maxTargets)
		}
	}
	if token := params.Get("target_next_token"); token != "" {
		if p.from, err = parseToken(token); err != nil {
			return page{}, err
		}
	}
	return p, nil
}

// take adds the targets of a collector, first the active ones and then the
// dropped, to what is on the page already. It returns where the next page begins
// if this one is full.
func (p page) take(all *answer, collector string, a answer) *position {
	skip := 0
	if collector == p.from.collector {
		skip = p.from.shown
	}
	for i, t := range append(a.Active, a.Dropped...) {
		if i < skip {
			continue
		}
		if len(all.Active)+len(all.Dropped) == p.limit {
			if i > 0 && skip == 0 {
				all.count(a.Counts)
			}
			return &position{collector: collector, shown: i}
		}
		if t == nil {
			continue
		}
		// A string is always encoded without an error.
		t["collector"], _ = json.Marshal(collector)
		if i < len(a.Active) {
			all.Active = append(all.Active, t)
		} else {
			all.Dropped = append(all.Dropped, t)
		}
	}
	if skip == 0 {
		all.count(a.Counts)
	}
	return nil
}

// count is called once for each collector, on the first page that has targets
// of it.
func (a *answer) count(dropped map[string]int) {
	for pool, n := range dropped {
		a.Counts[pool] += n
	}
}

type response struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// ServeHTTP is /api/v1/targets.
func (c *Gatherer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := parsePage(r.URL.Query())
	if err != nil {
		c.write(w, http.StatusBadRequest, response{Status: "error", ErrorType: "bad_data", Error: err.Error()})
		return
	}
	all, warnings := c.gather(r.Context(), p)
	c.write(w, http.StatusOK, response{Status: "success", Data: all, Warnings: warnings})
}

func (c *Gatherer) write(w http.ResponseWriter, code int, resp response) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(resp); err != nil {
		c.logger.Debug("sending API answer", "err", err)
	}
}
