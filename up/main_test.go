package up

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary stand in for the tocsin program, so that the
// children of a system under test are real processes.
func TestMain(m *testing.M) {
	commands := []string{"backend", "alertmanager", "collector", "rule-evaluator"}
	if len(os.Args) > 1 && slices.Contains(commands, os.Args[1]) {
		os.Exit(standIn(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// standIn is ready at once and stops when asked to. "--name=N" and
// "--stopped=FILE" make it append N to FILE then, "--stubborn" makes it ignore
// the request, "--broken" exit with an error.
func standIn(args []string) int {
	flags := map[string]string{}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		flags[k] = v
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if _, ok := flags["--broken"]; ok {
		fmt.Fprintln(os.Stderr, "open data: no space left")
		return 1
	}
	go serveStandIn(flags["--web.listen-address"])
	<-ctx.Done()
	if _, ok := flags["--stubborn"]; ok {
		select {}
	}
	if path := flags["--stopped"]; path != "" {
		appendLine(path, flags["--name"])
	}
	return 0
}

func serveStandIn(address string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/-/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/api/v1/status/tocsin", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"success","data":{"ready":true,"groups":7}}`)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(address, mux))
}

func appendLine(path, line string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	fmt.Fprintln(f, line)
	_ = f.Close()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// syncBuffer is a buffer that one goroutine writes and another reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
