package forward

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status    int
		version2  bool
		confirmed bool
		want      outcome
	}{
		{status: 0, version2: true, want: away},
		{status: 204, version2: true, confirmed: true, want: delivered},
		{status: 204, want: delivered},
		// A destination of 1.0 sees an empty request.
		{status: 204, version2: true, want: unknownVersion},
		{status: 400, version2: true, want: unknownVersion},
		{status: 415, version2: true, want: unknownVersion},
		{status: 415, version2: true, confirmed: true, want: unknownVersion},
		{status: 415, want: refused},
		{status: 400, version2: true, confirmed: true, want: refused},
		{status: 400, want: refused},
		{status: 409, want: refused},
		{status: 413, want: refused},
		{status: 422, want: refused},
		{status: 401, want: away},
		{status: 403, version2: true, want: away},
		{status: 404, want: away},
		{status: 429, version2: true, want: away},
		{status: 302, want: away},
		{status: 500, version2: true, want: away},
		{status: 503, want: away},
	} {
		require.Equal(t, tc.want, judge(tc.status, tc.version2, tc.confirmed), "%+v", tc)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"7":                             7 * time.Second,
		"-7":                            0,
		"soon":                          0,
		"86400":                         longestRetryAfter,
		"Thu, 01 Jan 2026 00:01:00 GMT": time.Minute,
		"Wed, 31 Dec 2025 23:59:00 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(header, now), header)
	}
}
