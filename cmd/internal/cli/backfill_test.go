package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
	"github.com/tocsin-rules/tocsin/ruler/backfill"
)

// backfillFiles makes a configuration whose backend is not there.
func backfillFiles(t *testing.T) (config string) {
	t.Helper()
	dir := t.TempDir()
	config = filepath.Join(dir, "evaluator.yml")
	require.NoError(t, os.WriteFile(config, []byte("rule_files: [rules.yml]\nbackends: [{name: main, url: 'http://user-less.invalid:1'}]\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(`
groups:
- name: first
  rules: [{record: a, expr: up}, {record: b, expr: up}]
- name: second
  rules: [{record: b, expr: up, labels: {of: second}}, {alert: C, expr: a}]
`), 0o600))
	return config
}

func TestBackfillSelectsRules(t *testing.T) {
	t.Parallel()
	config := backfillFiles(t)
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"everything": {nil, `2026-03-01T10:00:00Z to 2026-03-01T10:59:59Z, 1 chunks of 2h0m0s, 240 evaluations
to backends main (http://user-less.invalid:1/api/v1/write)

1, chunk by chunk
  file/first: 60 slots every 1m0s, 2 rules in 1 stages

2 after 1, chunk by chunk
  file/second: 60 slots every 1m0s, 2 rules in 1 stages
`},
		"a rule of a group": {[]string{"--group=second", "--rule=b", "--output-dir=/blocks"}, `2026-03-01T10:00:00Z to 2026-03-01T10:59:59Z, 1 chunks of 2h0m0s, 60 evaluations
to blocks in /blocks

1, chunk by chunk
  file/second: 60 slots every 1m0s, 1 rules in 1 stages
`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"rules", "backfill", "--dry-run", "--config.file=" + config, "--start=2026-03-01T10:00:00Z", "--end=1772362799"}, tc.args...)
			status, stdout, stderr := run(Tocsin, args...)
			require.Empty(t, stderr)
			require.Equal(t, command.ExitOK, status)
			require.Equal(t, tc.want, stdout)
		})
	}
}

func TestBackfillSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	config := "--config.file=" + backfillFiles(t)
	for name, tc := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"no start":            {[]string{config, "--end=1"}, command.ExitUsage, "tocsin: required flag(s) '--start' not provided; try --help\n"},
		"no time":             {[]string{config, "--start=yesterday", "--end=1"}, command.ExitUsage, "tocsin: --start \"yesterday\" is neither RFC 3339 nor a number of seconds; try --help\n"},
		"nobody works":        {[]string{config, "--start=0", "--end=1", "--concurrency=0"}, command.ExitUsage, "tocsin: --concurrency 0: must be at least 1; try --help\n"},
		"the end comes first": {[]string{config, "--start=3600", "--end=60"}, command.ExitFailed, "tocsin: the end 1970-01-01T00:01:00Z is before the start 1970-01-01T01:00:00Z\n"},
		"no such names":       {[]string{config, "--start=0", "--end=60", "--group=third", "--rule=a", "--rule=d"}, command.ExitFailed, "tocsin: there is no group third\nthere is no rule a\nthere is no rule d\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := run(Tocsin, append([]string{"rules", "backfill"}, tc.args...)...)
			require.Equal(t, tc.stderr, stderr)
			require.Equal(t, tc.status, status)
			require.Empty(t, stdout)
		})
	}
}

func TestProgressIsShown(t *testing.T) {
	t.Parallel()
	p := backfill.Progress{Done: 500, Total: 2000, Resumed: 300, Samples: 12}
	require.Equal(t, "[=======                       ]", progressBar(p))
	require.Equal(t, " 25% 500 of 2000 evaluations, 12 samples, about 1m15s left", progressText(p, 10*time.Second))
	require.Equal(t, "100% 0 of 0 evaluations, 0 samples", progressText(backfill.Progress{}, time.Second))

	var lines, bar bytes.Buffer
	display := newProgressDisplay(&lines)
	require.False(t, display.terminal)
	for done := int64(0); done <= 2000; done += 100 {
		display.show(backfill.Progress{Done: done, Total: 2000, Resumed: done})
	}
	display.end()
	require.Equal(t, "  0% 0 of 2000 evaluations, 0 samples\n100% 2000 of 2000 evaluations, 0 samples\n", lines.String())

	display = &progressDisplay{w: &bar, terminal: true, began: time.Now()}
	display.show(backfill.Progress{Done: 2000, Total: 2000})
	display.end()
	require.Equal(t, fmt.Sprintf("\r%s 100%% 2000 of 2000 evaluations, 0 samples\x1b[K\n", progressBar(backfill.Progress{})), bar.String())
}
