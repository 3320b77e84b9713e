package up

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tocsin-rules/tocsin/web"
)

const (
	// pollTimeout bounds how long one look at the members takes.
	pollTimeout = time.Second
	// maxStatusBytes bounds a member's answer.
	maxStatusBytes = 4 << 20
)

// poller asks members how they are.
type poller struct{ client *http.Client }

func newPoller() poller { return poller{&http.Client{Timeout: pollTimeout}} }

// all asks every member at once. The answers are in the order of urls, nil
// where there is none.
func (p poller) all(ctx context.Context, urls []string) []*web.MemberStatus {
	answers := make([]*web.MemberStatus, len(urls))
	var wg sync.WaitGroup
	for i, u := range urls {
		wg.Go(func() {
			if s, err := p.one(ctx, u); err == nil {
				answers[i] = s
			}
		})
	}
	wg.Wait()
	return answers
}

func (p poller) one(ctx context.Context, url string) (*web.MemberStatus, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/status/tocsin", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status string            `json:"status"`
		Data   *web.MemberStatus `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatusBytes)).Decode(&answer); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || answer.Status != "success" {
		return nil, fmt.Errorf("%s: status %q", resp.Status, answer.Status)
	}
	return answer.Data, nil
}
