package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRealRulePacks evaluates every rule of the packs beside the repository
// once. That they go on for ten minutes is what bench/soak is for.
func TestRealRulePacks(t *testing.T) {
	t.Parallel()
	_, here, _, ok := runtime.Caller(0)
	require.True(t, ok)
	packs := filepath.Join(filepath.Dir(here), "..", "..", "..", "shared", "rules")
	if _, err := os.Stat(packs); err != nil {
		t.Skipf("real rule packs are not there: %v", err)
	}
	s := newSystem(t, "--rules", packs)
	s.start()
	var all []group
	eventually(t, func() (err error) {
		if all, err = s.groups(0); err == nil && len(all) == 0 {
			err = errors.New("no groups")
		}
		return err
	})
	longest := slices.MaxFunc(all, func(a, b group) int { return cmp.Compare(a.Interval, b.Interval) })
	// A group's first slot can be a whole interval away.
	first := time.Duration(longest.Interval * float64(time.Second))
	rules := 0
	within(t, first+settle, func() error {
		groups, err := s.groups(0)
		if err != nil {
			return err
		}
		rules = 0
		for _, g := range groups {
			for _, r := range g.Rules {
				rules++
				if r.Health == "unknown" {
					return fmt.Errorf("rule %s of %s has not been evaluated", r.Name, g.Key)
				}
				// Some examples name a cluster that this fleet does not have.
				if r.Health != "ok" && !strings.Contains(r.LastError, `no backend holds series with {cluster="valhalla"}`) {
					return fmt.Errorf("rule %s of %s: %s", r.Name, g.Key, r.LastError)
				}
			}
		}
		if rules < 1300 {
			return fmt.Errorf("%d rules", rules)
		}
		return nil
	})
	for i := range 3 {
		st, err := s.status(i)
		require.NoError(t, err)
		require.Zero(t, st.SlotsMissed)
		require.Empty(t, st.FileErrors)
	}
}
