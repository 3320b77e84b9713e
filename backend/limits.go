package backend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tocsin-rules/tocsin/web/promapi"
)

const (
	reasonBodyTooLarge    = "body_too_large"
	reasonDecodedTooLarge = "decoded_body_too_large"
)

// limiter bounds what a request may make the process allocate before any
// handler looks at it.
type limiter struct {
	maxBody, maxDecoded int64
	refused             *prometheus.CounterVec
}

func newLimiter(cfg APIConfig, reg prometheus.Registerer) *limiter {
	l := &limiter{
		maxBody:    cfg.MaxRequestBytes,
		maxDecoded: cfg.MaxDecodedBytes,
		refused: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_backend_refused_requests_total",
			Help: "HTTP requests that were refused because of their size.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{reasonBodyTooLarge, reasonDecodedTooLarge} {
		l.refused.WithLabelValues(reason)
	}
	return l
}

func (l *limiter) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, l.maxBody)
		switch r.URL.Path {
		case promapi.Prefix + "/write", promapi.Prefix + "/read":
			if !l.admitSnappy(w, r) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// admitSnappy reads the body of a remote write or read request and checks the
// size that it announces to have when uncompressed: the handlers allocate
// that much at once. A body that is not Snappy is left to the handler.
func (l *limiter) admitSnappy(w http.ResponseWriter, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		l.refuse(w, reasonBodyTooLarge, fmt.Sprintf("request body exceeds the limit of %d bytes: send smaller batches", l.maxBody))
		return false
	case err != nil:
		http.Error(w, fmt.Sprintf("read request body: %s", err), http.StatusBadRequest)
		return false
	}
	if n, err := snappy.DecodedLen(body); err == nil && int64(n) > l.maxDecoded {
		l.refuse(w, reasonDecodedTooLarge, fmt.Sprintf("uncompressed request body of %d bytes exceeds the limit of %d bytes: send smaller batches", n, l.maxDecoded))
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return true
}

func (l *limiter) refuse(w http.ResponseWriter, reason, message string) {
	l.refused.WithLabelValues(reason).Inc()
	http.Error(w, message, http.StatusRequestEntityTooLarge)
}
