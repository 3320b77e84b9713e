package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/evaluator"
)

func TestPartialResponseParameter(t *testing.T) {
	t.Parallel()
	for form, want := range map[string]int{"": 200, "partial_response=false": 200, "partial_response=1": 299, "partial_response=perhaps": 400} {
		var query string
		h := partialResponse(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query = r.FormValue("query")
			if evaluator.IsPartial(r.Context()) {
				w.WriteHeader(299)
			}
		}))
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodPost, "/api/v1/query", strings.NewReader("query=up&"+form))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		h.ServeHTTP(rec, req)
		require.Equal(t, want, rec.Code, form)
		if want != 400 {
			require.Equal(t, "up", query, "the form is still there")
		} else {
			require.JSONEq(t, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"partial_response\": \"perhaps\" is neither true nor false"}`, rec.Body.String())
		}
	}
}
