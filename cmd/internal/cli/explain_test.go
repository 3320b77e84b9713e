package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

var seconds = regexp.MustCompile(`"seconds": [0-9.e-]+`)

// TestExplain runs the scripts in testdata/explain. They make files and
// explain them:
//
//	file NAME      the input is the file's content
//	explain        the input is the command line, one argument a line; DIR is
//	               the directory of the files
func TestExplain(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/explain", func(t *testing.T, path string) {
		dir := t.TempDir()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "file" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, d.CmdArgs[0].Key), []byte(d.Input), 0o600))
				return ""
			}
			args := []string{"rules", "explain"}
			for line := range strings.Lines(d.Input) {
				args = append(args, strings.ReplaceAll(strings.TrimSpace(line), "DIR", dir))
			}
			status, stdout, stderr := run(Tocsin, args...)
			printed := strings.ReplaceAll(fmt.Sprintf("%s%sstatus %d\n", stdout, stderr, status), dir, "DIR")
			return seconds.ReplaceAllString(printed, `"seconds": SECONDS`)
		})
	})
}

func TestExplainAsksAMember(t *testing.T) {
	t.Parallel()
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/prefix/api/v1/rules/plan" || r.URL.Query().Get("key") != "file/r/g" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"status":"error","errorType":"not_found","error":"no group with that key"}`)
			return
		}
		fmt.Fprint(w, `{"status":"success","data":{"slot":"2026-01-01T00:00:00Z",
			"backends":[{"name":"east","partitionLabels":{"cluster":"east"}}],
			"rules":[{"group":"file/r/g","name":"r","type":"recording","expr":"sum(x)","stage":1,"tree":{"kind":"fragment","fragment":0}}],
			"fragments":[{"backend":"east","expr":"sum(x)","rules":[0],"others":["file/s/g/r"]}]}}`)
	}))
	t.Cleanup(member.Close)
	status, stdout, stderr := run(Tocsin, "rules", "explain", "--url", member.URL+"/prefix", "file/r/g")
	require.Zero(t, status, stderr)
	require.Equal(t, `backends
  east  {cluster="east"}

group file/r/g
recording r
  sum(x)
  east: sum(x) [shared with file/s/g/r]
`, stdout)
	status, _, stderr = run(Tocsin, "rules", "explain", "--url", member.URL+"/prefix", "other")
	require.Equal(t, command.ExitFailed, status)
	require.Contains(t, stderr, "404 Not Found: no group with that key")
}
