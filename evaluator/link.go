package evaluator

import (
	"net"
	"net/url"
	"time"

	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// link makes connections to the endpoints of one backend.
type link struct {
	cfg     Config
	backend BackendConfig
	target  remote.Target
}

// connector returns the way to connect to an endpoint of a backend.
func connector(cfg Config, b BackendConfig) func(remote.Target) (remote.Connection, error) {
	return func(t remote.Target) (remote.Connection, error) { return link{cfg, b, t}.connect() }
}

func (l link) connect() (c remote.Connection, err error) {
	api, err := remote.NewHTTP(l.http())
	if err != nil {
		return c, err
	}
	c.Labels = api
	if l.backend.Thanos != nil {
		thanos, err := remote.NewThanos(l.thanos(), api)
		c.Queries, c.Series = thanos, thanos
		return c, err
	}
	if l.backend.NoRemoteRead {
		c.Series = remote.NewRangeSelectors(api)
	} else if c.Series, err = remote.NewChunkedRead(l.http(), time.Duration(l.cfg.Timeout)); err != nil {
		return c, err
	}
	if l.backend.GRPC != nil {
		c.Queries, err = remote.NewNative(l.native())
		return c, err
	}
	c.Queries = api
	return c, nil
}

func (l link) http() remote.HTTPConfig {
	return remote.HTTPConfig{
		Name:             l.backend.Name,
		URL:              l.url(),
		Client:           l.backend.HTTPClientConfig,
		MaxConcurrent:    l.cfg.MaxConcurrentPerBackend,
		MaxResponseBytes: l.cfg.MaxResponseBytes,
	}
}

// url is that of the endpoint's API. A Thanos querier may leave out data unless
// it is told not to.
func (l link) url() *url.URL {
	params := l.backend.params()
	if l.backend.Thanos != nil {
		params.Set("partial_response", "false")
		params.Set("dedup", "true")
	}
	return &url.URL{Scheme: l.target.Scheme, Host: l.target.Host, Path: l.target.Path, RawQuery: params.Encode()}
}

func (l link) native() remote.NativeConfig {
	return remote.NativeConfig{
		Address:          l.address(l.backend.GRPC.Address),
		Transport:        l.backend.GRPC.TLS,
		Compress:         l.backend.GRPC.Compress,
		MaxConcurrent:    l.cfg.MaxConcurrentPerBackend,
		MaxResponseBytes: l.cfg.MaxResponseBytes,
	}
}

func (l link) thanos() remote.ThanosConfig {
	return remote.ThanosConfig{
		Address:          l.address(l.backend.Thanos.Address),
		TLS:              l.backend.Thanos.TLSConfig,
		Credentials:      l.backend.HTTPClientConfig,
		MaxConcurrent:    l.cfg.MaxConcurrentPerBackend,
		MaxResponseBytes: l.cfg.MaxResponseBytes,
		MaxSamples:       int(l.cfg.Limits.Query.Samples),
	}
}

// address completes ":port" with the endpoint's host.
func (l link) address(configured string) string {
	host, port, err := net.SplitHostPort(configured)
	if err != nil || host != "" {
		return configured // Validation has seen to the form.
	}
	target := url.URL{Host: l.target.Host}
	return net.JoinHostPort(target.Hostname(), port)
}
