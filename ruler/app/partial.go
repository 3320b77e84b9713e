package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/tocsin-rules/tocsin/evaluator"
)

// partialResponse serves the parameter partial_response of Thanos' query API:
// whoever sets it is content with the data of the backends that answer. The
// default is that of rules, to fail.
func partialResponse(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := r.FormValue("partial_response")
		if text == "" {
			next.ServeHTTP(w, r)
			return
		}
		partial, err := strconv.ParseBool(text)
		if err != nil {
			refuse(w, fmt.Sprintf("invalid parameter %q: %q is neither true nor false", "partial_response", text))
			return
		}
		if partial {
			r = r.WithContext(evaluator.Partial(r.Context()))
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers in the shape of Prometheus' API.
func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	// Who does not wait for the answer does not miss it.
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": "bad_data", "error": why})
}
