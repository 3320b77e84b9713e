package process

import (
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// servingPID asks who serves at addr; empty if nobody does.
func servingPID(addr string) string {
	resp, err := http.Get("http://" + addr)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	pid, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(pid)
}

func TestAChildDiesWithItsKilledParent(t *testing.T) {
	t.Parallel()
	c := start(t, "parent")
	c.waitReady(t)
	orphan := servingPID(c.addr)
	require.NotEmpty(t, orphan)
	require.NoError(t, syscall.Kill(c.Status().PID, syscall.SIGKILL))
	// The restarted parent's child can only serve once the orphan, which held
	// the port, is gone.
	require.Eventually(t, func() bool {
		pid := servingPID(c.addr)
		return pid != "" && pid != orphan
	}, time.Minute, 5*time.Millisecond)
}
