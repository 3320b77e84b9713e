package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tocsin-rules/tocsin/cmd/internal/command"
)

func TestMigrateSaysByItsStatusWhatWasLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"good.yml": "groups: [{name: a, rules: [{record: r, expr: up}]}]",
		"lost.yml": "groups: [{name: a, eval_offset: 5s, rules: [{record: r, expr: up}]}]",
		"bad.yml":  "groups: [{name: a, rules: [{record: r, expr: 'up{'}]}]",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	const made = `---
apiVersion: monitoring.googleapis.com/v1
kind: ClusterRules
metadata:
    name: good
spec:
    groups:
        - name: a
          rules:
            - record: r
              expr: up
`
	for name, want := range map[string]struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		"everything has an equivalent": {[]string{"good.yml"}, command.ExitOK, made, "1 resources; remarks: 0 changed, 0 lost, 0 failed"},
		"something has none":           {[]string{"lost.yml", "--check"}, exitLost, "", "the offset of a group within its interval can't be chosen"},
		"something is wrong":           {[]string{"bad.yml", "lost.yml", "good.yml"}, command.ExitFailed, made, "does not become ClusterRules/bad: "},
		"a file is missing":            {[]string{"none.yml"}, command.ExitFailed, "", "none.yml"},
		"a kind that there is not":     {[]string{"--rules.kind=Rule", "good.yml"}, command.ExitUsage, "", "enum value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"migrate"}
			for _, a := range want.args {
				if filepath.Ext(a) == ".yml" {
					a = filepath.Join(dir, a)
				}
				args = append(args, a)
			}
			var stdout, stderr bytes.Buffer
			require.Equal(t, want.status, Tocsin(args, command.Streams{Stdout: &stdout, Stderr: &stderr}), stderr.String())
			if want.stdout == "" {
				require.Empty(t, stdout.String())
			}
			require.Contains(t, stdout.String(), want.stdout)
			require.Contains(t, stderr.String(), want.stderr)
		})
	}
}
