// Package targets shows the targets of a fleet: it asks collectors for
// theirs and puts the answers together, a page at a time, in the shape of
// Prometheus' API.
//
// It keeps nothing between requests and asks no more collectors than a page
// needs. A Gatherer is safe for concurrent use.
package targets

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	commonconfig "github.com/prometheus/common/config"
)

const (
	// concurrency is how many collectors are asked at one time.
	concurrency = 8
	// timeout bounds the answer of one collector, maxAnswerBytes its size.
	timeout        = 5 * time.Second
	maxAnswerBytes = 32 << 20
)

// Config says where collectors are and how to talk to them.
type Config struct {
	// Addresses are HOST:PORT; a DNS name stands for all addresses behind it, as
	// that of a headless service.
	Addresses []string `yaml:"addresses"`
	// Scheme is http, which is the default, or https.
	Scheme           string                        `yaml:"scheme,omitempty"`
	HTTPClientConfig commonconfig.HTTPClientConfig `yaml:"http_client_config,omitempty"`
}

// UnmarshalYAML sets the defaults.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	*c = Config{HTTPClientConfig: commonconfig.DefaultHTTPClientConfig}
	type plain Config
	return unmarshal((*plain)(c))
}

// SetDirectory says what the paths of files are relative to.
func (c *Config) SetDirectory(dir string) { c.HTTPClientConfig.SetDirectory(dir) }

// Validate returns all faults at once.
func (c *Config) Validate() error {
	errs := []error{c.HTTPClientConfig.Validate()}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, fmt.Errorf("address %q is not HOST:PORT", a))
		}
	}
	if !slices.Contains([]string{"", "http", "https"}, c.Scheme) {
		errs = append(errs, fmt.Errorf("scheme %q is neither http nor https", c.Scheme))
	}
	return errors.Join(errs...)
}

// Gatherer asks collectors. Make one with New.
type Gatherer struct {
	cfg    Config
	client *http.Client
	logger *slog.Logger
	// maxBytes bounds the answer of one collector.
	maxBytes int64
}

// New returns a Gatherer for a valid configuration. It talks to nobody.
func New(cfg Config, logger *slog.Logger) (*Gatherer, error) {
	client, err := commonconfig.NewClientFromConfig(cfg.HTTPClientConfig, "collectors")
	if err != nil {
		return nil, fmt.Errorf("collectors: %w", err)
	}
	return &Gatherer{cfg: cfg, client: client, logger: logger, maxBytes: maxAnswerBytes}, nil
}

// target is one as a collector shows it, with the name of the collector.
type target map[string]json.RawMessage

// answer is what one collector says of its targets.
type answer struct {
	Active  []target       `json:"activeTargets"`
	Dropped []target       `json:"droppedTargets"`
	Counts  map[string]int `json:"droppedTargetCounts"`

	NextToken string `json:"targetNextToken,omitempty"`
}

// gather asks collectors in order, as many as the page needs. A warning names
// each that has not answered.
func (c *Gatherer) gather(ctx context.Context, p page) (answer, []string) {
	all := answer{Active: []target{}, Dropped: []target{}, Counts: map[string]int{}}
	addresses, warnings := c.resolve(ctx)
	first, _ := slices.BinarySearch(addresses, p.from.collector)
	for batch := range slices.Chunk(addresses[first:], concurrency) {
		for i, got := range c.askAll(ctx, batch, p.query) {
			if got.err != nil {
				warnings = append(warnings, fmt.Sprintf("collector %q did not answer, its targets are missing: %s", batch[i], got.err))
				continue
			}
			if next := p.take(&all, batch[i], got.answer); next != nil {
				all.NextToken = next.token()
				return all, warnings
			}
		}
	}
	return all, warnings
}

// resolve returns the addresses of all collectors, each once and in order.
func (c *Gatherer) resolve(ctx context.Context) (addresses, warnings []string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, a := range c.cfg.Addresses {
		// It was checked that there are two.
		host, port, _ := net.SplitHostPort(a)
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("collectors at %q are not found: %s", a, err))
		}
		for _, ip := range ips {
			addresses = append(addresses, net.JoinHostPort(ip, port))
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), warnings
}

type outcome struct {
	answer answer
	err    error
}

// askAll returns the outcomes in the order of the addresses.
func (c *Gatherer) askAll(ctx context.Context, addresses []string, query url.Values) []outcome {
	outcomes := make([]outcome, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() { outcomes[i].answer, outcomes[i].err = c.ask(ctx, address, query) })
	}
	wg.Wait()
	return outcomes
}

func (c *Gatherer) ask(ctx context.Context, address string, query url.Values) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	u := url.URL{Scheme: cmp.Or(c.cfg.Scheme, "http"), Host: address, Path: "/api/v1/targets", RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return answer{}, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("it answered %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.maxBytes+1))
	if err != nil {
		return answer{}, err
	}
	if int64(len(body)) > c.maxBytes {
		return answer{}, fmt.Errorf("its answer has more than %d bytes; ask for one scrapePool, or for state=active", c.maxBytes)
	}
	var envelope struct{ Data answer }
	if err := json.Unmarshal(body, &envelope); err != nil {
		return answer{}, fmt.Errorf("its answer is none of a collector's: %w", err)
	}
	return envelope.Data, nil
}
