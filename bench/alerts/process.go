package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/tocsin-rules/tocsin/proto/remotewrite"
)

// process is one of tocsin's.
type process struct {
	cmd     *exec.Cmd
	address string
}

// run starts a process and waits until it is ready.
func (s *system) run(ctx context.Context, command string, args ...string) (*process, error) {
	p := &process{address: freeAddress()}
	p.cmd = exec.Command(s.binary, append([]string{command, "--web.listen-address=" + p.address, "--web.enable-pprof", "--log.level=warn"}, args...)...)
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, until(ctx, time.Minute, func() error {
		_, err := p.get("/-/ready")
		return err
	})
}

// until repeats f until it returns no error, for a limited time.
func until(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

func (p *process) get(path string) ([]byte, error) {
	resp, err := http.Get("http://" + p.address + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return body, err
}

// metric is the sum and the largest of all series of a name; none are zero.
func (p *process) metric(name string) (sum, largest float64, err error) {
	text, err := p.get("/metrics")
	if err != nil {
		return 0, 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		series, value, ok := cutLast(lines.Text())
		if base, _, _ := strings.Cut(series, "{"); !ok || base != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, 0, err
		}
		sum, largest = sum+v, max(largest, v)
	}
	return sum, largest, lines.Err()
}

func cutLast(line string) (series, value string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

// write gives every series a sample, so that all alerts are active, or none.
func (s *system) write(ctx context.Context, value float64) error {
	const batch = 5000
	now := time.Now().UnixMilli()
	for from := 0; from < s.alerts; from += batch {
		var samples []remotewrite.Sample
		for i := from; i < min(from+batch, s.alerts); i++ {
			samples = append(samples, remotewrite.Sample{Labels: s.series(i), T: now, F: value})
		}
		body, err := remotewrite.Encode(samples, remoteapi.WriteV1MessageType)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.backend.address+"/api/v1/write", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Encoding", "snappy")
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("write: %s", resp.Status)
		}
	}
	return nil
}

func (s *system) series(i int) labels.Labels {
	return labels.FromStrings(labels.MetricName, "pod_not_ready", "cluster", "east-1", "instance", "10.0.0.1:8443", "job", "kube-state-metrics",
		"namespace", fmt.Sprintf("shop-%03d", i%500), "pod", fmt.Sprintf("checkout-%05d-7d9f8b6c5d-x2x%02d", i, i%100),
		"shard", fmt.Sprintf("%03d", i%s.groups))
}

// receiver takes alerts as an Alertmanager does.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	known    map[string]bool
	requests int
	alerts   int
}

func newReceiver() *receiver {
	r := &receiver{known: map[string]bool{}}
	r.Server = httptest.NewServer(r)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var alerts []struct{ Labels struct{ Pod string } }
	if err := json.NewDecoder(req.Body).Decode(&alerts); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	r.alerts += len(alerts)
	for _, a := range alerts {
		r.known[a.Labels.Pod] = true
	}
}

func (r *receiver) counts() (known, requests, alerts int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.known), r.requests, r.alerts
}
