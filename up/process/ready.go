package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	readyInterval = 100 * time.Millisecond
	readyTimeout  = 2 * time.Second
	// maxReadyBody bounds what is kept of the reason in a "not ready" answer.
	maxReadyBody = 512
)

// pollReady asks until the process is ready or ctx ends.
func (p *Process) pollReady(ctx context.Context) {
	client := &http.Client{Timeout: readyTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		err := askReady(ctx, client, p.spec.ReadyURL)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			p.becameReady()
			return
		}
		p.update(func(s *Status) { s.NotReady = err.Error() })
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *Process) becameReady() {
	p.update(func(s *Status) {
		if s.State == Starting {
			s.State, s.NotReady = Ready, ""
		}
	})
	p.logger.Info("process is ready")
	if !isClosed(p.wasReady) {
		close(p.wasReady)
	}
}

func askReady(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s whether it is ready: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return errors.New("it does not answer")
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReadyBody))
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return errors.New(resp.Status)
	}
	return errors.New(string(body))
}
