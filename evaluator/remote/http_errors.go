package remote

import (
	"encoding/json"
	"net/http"
	"strings"
)

// apiError is the body of a failed call.
type apiError struct {
	Status    string `json:"status"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
}

// maxErrorText bounds what of a foreign error page ends up in our errors.
const maxErrorText = 300

func statusError(resp *http.Response, body []byte) error {
	var e apiError
	if json.Unmarshal(body, &e) == nil && e.Status == "error" {
		return errorf(apiKind(resp.StatusCode, e), "%s", e.Error)
	}
	return errorf(statusKind(resp.StatusCode), "HTTP status %s: %s", resp.Status, excerpt(body))
}

func excerpt(body []byte) string {
	text := strings.Join(strings.Fields(string(body[:min(len(body), 4*maxErrorText)])), " ")
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// apiKind knows the error types of Prometheus. Other servers put other things
// there, so the status decides for those.
func apiKind(status int, e apiError) Kind {
	switch e.ErrorType {
	case "timeout":
		return KindTimeout
	case "canceled":
		// The server gave up, we did not.
		return KindBackend
	case "internal":
		return KindInternal
	case "bad_data", "execution":
		switch {
		case isLimit(e.Error):
			return KindLimit
		case fromStore(e.Error):
			return KindBackend
		}
		return KindUser
	case "too_many_requests":
		return KindLimit
	}
	if kind := statusKind(status); kind != KindUser || !isLimit(e.Error) {
		return kind
	}
	return KindLimit
}

// isLimit recognises the limits of Prometheus, Mimir, Cortex, Thanos and
// VictoriaMetrics, which share an error type with mistakes.
func isLimit(text string) bool {
	text = strings.ToLower(text)
	for _, sign := range []string{
		"too many samples", "exceeded maximum resolution", "err-mimir-max-", "exceeds limit", "exceeds the limit", "exceeded the limit", "limit exceeded", "the query hit the max number of", "cannot select more than",
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

// fromStore recognises what Thanos says if a store behind it is away: it has
// the error type of a mistake, too.
func fromStore(text string) bool { return strings.Contains(text, "rpc error") }

func statusKind(status int) Kind {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return KindUser
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return KindLimit
	case http.StatusGatewayTimeout:
		return KindTimeout
	}
	return KindBackend
}
