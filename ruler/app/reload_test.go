package app

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/promslog"
	"github.com/stretchr/testify/require"
)

const goodConfig = `
rule_files: [rules]
backends: [{name: all, url: "http://127.0.0.1:9"}]
`

func TestTheConfigurationIsReloadedWhenItsFileChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "evaluator.yml")
		write := func(content string) { require.NoError(t, os.WriteFile(file, []byte(content), 0o600)) }
		require.NoError(t, os.Mkdir(filepath.Join(dir, "rules"), 0o700))
		write(goodConfig)
		a, err := newApp(Options{ConfigFile: file, Name: "a", GossipAddress: "127.0.0.1:0"}, promslog.NewNopLogger())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = a.reloadOnChange(ctx, a.configSum) }()
		look := func() {
			<-time.After(configPoll)
			synctest.Wait()
		}
		shown := func() (errs []string) {
			for _, e := range a.state.fileErrors(file) {
				errs = append(errs, e.File+": "+e.Error)
			}
			return errs
		}
		at := testutil.ToFloat64(a.reloadedAt)
		look()
		require.Equal(t, at, testutil.ToFloat64(a.reloadedAt), "nothing has changed")

		write(goodConfig + "alerting: {alertmanager: []}")
		look()
		require.Len(t, shown(), 1)
		require.Contains(t, shown()[0], file+": ")
		require.Zero(t, testutil.ToFloat64(a.reloaded))

		write("rule_files: [other]" + goodConfig[len("\nrule_files: [rules]"):])
		look()
		require.Equal(t, []string{file + `: configuration file "` + file + `": a change of rule_files needs a restart`}, shown())

		write(goodConfig + "alerting: {alertmanagers: []}")
		look()
		require.Empty(t, shown())
		require.Equal(t, 1.0, testutil.ToFloat64(a.reloaded))
		require.Greater(t, testutil.ToFloat64(a.reloadedAt), at)
	})
}
