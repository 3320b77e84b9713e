package web

import (
	"errors"
	"net/http"

	"github.com/tocsin-rules/tocsin/evaluator/explain"
)

// ErrNotFound says that what was asked for is not there.
var ErrNotFound = errors.New("not found")

// Plans explains loaded groups; every member has all of them.
type Plans interface {
	// Plan says what becomes of the rules of a group at its latest slot. It is
	// an ErrNotFound if no group with that key is loaded.
	Plan(key string) (*explain.Report, error)
}

// servePlan answers what becomes of the rules of one group, in the shape that
// `tocsin rules explain --format json` prints.
func (h *Handler) servePlan(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	if key == "" {
		h.answer(w, http.StatusBadRequest, response{Status: "error", ErrorType: "bad_data", Error: `parameter "key" is missing: it is the key of a group, as in /api/v1/rules`})
		return
	}
	report, err := h.deps.Plans.Plan(key)
	switch {
	case errors.Is(err, ErrNotFound):
		h.answer(w, http.StatusNotFound, response{Status: "error", ErrorType: "not_found", Error: err.Error()})
	case err != nil:
		h.answer(w, http.StatusInternalServerError, response{Status: "error", ErrorType: "internal", Error: err.Error()})
	default:
		h.answer(w, http.StatusOK, response{Status: "success", Data: report})
	}
}
