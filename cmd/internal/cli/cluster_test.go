package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/web"
)

// answering is a member that gives fixed answers, behind a password if there
// is one.
func answering(t *testing.T, password string, status web.ClusterStatus) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status/cluster", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": status})
	})
	mux.HandleFunc("POST /-/drain", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Drained.") })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, given, _ := r.BasicAuth(); given != password {
			http.Error(w, "who are you?\nreally", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func sampleStatus() web.ClusterStatus {
	at := func(s int64) time.Time { return time.Unix(1_767_225_600+s, 0).UTC() }
	return web.ClusterStatus{
		Member: "member-0",
		Members: []web.ClusterMember{
			{Name: "member-0", State: "ready", Zone: "a", HTTPAddress: "127.0.0.1:19090", Status: &web.MemberStatus{
				Member: "member-0", Ready: true, Groups: 2, Rules: 7, Cost: 300, LagSeconds: 0.42, SlotsMissed: 1, SlotsBackfilled: 2, Firing: 3, Pending: 4,
				RuleErrors: []web.RuleError{{Group: "file/a/g", Rule: "r", Error: "backend west is away"}},
				FileErrors: []web.FileError{{File: "bad.yml", Error: "line 3"}},
			}},
			{Name: "member-1", State: "leaving", HTTPAddress: "127.0.0.1:19091", Clock: &web.Clock{AheadSeconds: -2.5, WithinSeconds: 0.1}, Status: &web.MemberStatus{
				Member: "member-1", Cost: 100, NotReady: "drained", FileErrors: []web.FileError{{File: "bad.yml", Error: "line 3"}},
			}},
			{Name: "member-2", State: "ready", HTTPAddress: "127.0.0.1:19092", Clock: &web.Clock{AheadSeconds: 1.5, WithinSeconds: 0.6}, ToldGroups: 5, ToldCost: 100, Error: "no answer in time"},
		},
		Groups: []web.GroupPlace{
			{Key: "file/a/g", Rules: 3, Owner: "member-0", Successor: "member-2", Running: []web.GroupRun{
				{Member: "member-0", Since: at(0), From: "member-1", LastSlot: at(60), Late: "slot 00:01:15 is being written since 00:01:16"},
			}},
			{Key: "file/b/g", Rules: 4, Owner: "member-0", Successor: "member-2", Running: []web.GroupRun{
				{Member: "member-0", Since: at(5), From: "backend"}, {Member: "member-1", Since: at(1)},
			}},
			{Key: "file/c/g", Rules: 1, Owner: "member-2", Successor: "member-0"},
		},
	}
}

func TestClusterStatusIsATable(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := run(Tocsin, "cluster", "status", "--url", answering(t, "", sampleStatus()))
	require.Zero(t, status, stderr)
	require.Equal(t, `member-0 sees 3 members and 3 groups

MEMBER    STATE    ZONE  GROUPS  RULES      LOAD  LAG    MISSED  REPEATED  FIRING  PENDING  CLOCK    HTTP
member-0  ready    a     2       7          60%   400ms  1       2         3       4        -        127.0.0.1:19090
member-1  leaving  -     0       0          20%   0s     0       0         0       0        -2.500s  127.0.0.1:19091
member-2  ready    -     5       no answer  20%   -      -       -         -       -        +1.500s  127.0.0.1:19092

last handoffs
  2026-01-01T00:00:05Z  from the backends to member-0: file/b/g
  2026-01-01T00:00:01Z  new to member-1: file/b/g
  2026-01-01T00:00:00Z  member-1 to member-0: file/a/g

problems
  member-1 is not ready: drained
  clocks of member-1 and member-0 differ by 2.5s
  member-2 does not answer: no answer in time
  group file/a/g is late on member-0: slot 00:01:15 is being written since 00:01:16
  group file/b/g: owner member-0, runs on member-0,member-1
  group file/c/g: owner member-2, runs on -
  file bad.yml: line 3
  rule r of file/a/g: backend west is away
`, stdout)
}

func TestClusterOwnersIsATable(t *testing.T) {
	t.Parallel()
	member := answering(t, "", sampleStatus())
	status, stdout, stderr := run(Tocsin, "cluster", "owners", "--url", member)
	require.Zero(t, status, stderr)
	require.Equal(t, `GROUP     RULES  OWNER     SUCCESSOR  RUNS ON            SINCE                 LAST SLOT
file/a/g  3      member-0  member-2   member-0           2026-01-01T00:00:00Z  2026-01-01T00:01:00Z
file/b/g  4      member-0  member-2   member-0,member-1  2026-01-01T00:00:05Z  -
file/c/g  1      member-2  member-0   -                  -                     -
`, stdout)

	status, stdout, _ = run(Tocsin, "cluster", "owners", "--url", member, "--format", "json", "/c/", "/a/")
	require.Zero(t, status)
	var shown []web.GroupPlace
	require.NoError(t, json.Unmarshal([]byte(stdout), &shown))
	require.Len(t, shown, 2)
	require.Equal(t, "member-2", shown[1].Owner)

	status, _, stderr = run(Tocsin, "cluster", "owners", "--url", member, "/x/", "/y/")
	require.Equal(t, command.ExitFailed, status)
	require.Equal(t, "tocsin: no group has /x/ or /y/ in its key\n", stderr)
}

func TestClusterStatusInJSONIsWhatTheMemberAnswers(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := run(Tocsin, "cluster", "status", "--format", "json", "--url", answering(t, "", sampleStatus()))
	require.Zero(t, status, stderr)
	want, err := json.Marshal(sampleStatus())
	require.NoError(t, err)
	require.JSONEq(t, string(want), stdout)
}

func TestADrainSaysHowItEnded(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := run(Tocsin, "cluster", "drain", "--url", answering(t, "", sampleStatus()))
	require.Zero(t, status, stderr)
	require.Equal(t, "Drained.\n", stdout)
	status, _, stderr = run(Tocsin, "cluster", "drain")
	require.Equal(t, command.ExitUsage, status)
	require.Contains(t, stderr, "required flag(s) '--url' not provided")
}

func TestAMemberBehindAPassword(t *testing.T) {
	t.Parallel()
	member := answering(t, "secret", sampleStatus())
	status, _, stderr := run(Tocsin, "cluster", "status", "--url", member)
	require.Equal(t, command.ExitFailed, status)
	require.Equal(t, fmt.Sprintf("tocsin: %s answers 401 Unauthorized: who are you?\n", member), stderr)

	file := filepath.Join(t.TempDir(), "http.yml")
	require.NoError(t, os.WriteFile(file, []byte("basic_auth: {username: me, password: secret}\n"), 0o600))
	status, _, stderr = run(Tocsin, "cluster", "status", "--url", member, "--http.config.file", file)
	require.Zero(t, status, stderr)
}

func TestAMemberThatIsNotThere(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for target, want := range map[string]string{
		gone.URL:    "ask member: ",
		"localhost": "is not a URL",
	} {
		status, _, stderr := run(Tocsin, "cluster", "status", "--url", target)
		require.Equal(t, command.ExitFailed, status)
		require.Contains(t, stderr, want)
	}
}
