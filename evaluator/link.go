package evaluator

import (
	"net/url"
	"time"

	"github.com/tocsin-rules/tocsin/evaluator/remote"
)

// link is how a backend is reached.
type link struct {
	client remote.Client
	series remote.SeriesSource
	api    *remote.HTTP
}

func newLink(cfg Config, b BackendConfig) (l link, err error) {
	if l.api, err = remote.NewHTTP(httpConfig(cfg, b)); err != nil {
		return l, err
	}
	if b.Thanos != nil {
		thanos, err := remote.NewThanos(thanosConfig(cfg, b), l.api)
		l.client, l.series = thanos, thanos
		return l, err
	}
	if l.series, err = remote.NewChunkedRead(httpConfig(cfg, b), time.Duration(cfg.Timeout), cfg.MaxSamples); err != nil {
		return l, err
	}
	if b.GRPC != nil {
		l.client, err = remote.NewNative(nativeConfig(cfg, b))
		return l, err
	}
	l.client = l.api
	return l, nil
}

func httpConfig(cfg Config, b BackendConfig) remote.HTTPConfig {
	return remote.HTTPConfig{
		Name:             b.Name,
		URL:              apiURL(b),
		Client:           b.HTTPClientConfig,
		MaxConcurrent:    cfg.MaxConcurrentPerBackend,
		MaxResponseBytes: cfg.MaxResponseBytes,
	}
}

// apiURL has the parameters without which a Thanos querier may leave out data.
func apiURL(b BackendConfig) *url.URL {
	if b.Thanos == nil {
		return b.URL.URL
	}
	u := *b.URL.URL
	params := u.Query()
	params.Set("partial_response", "false")
	params.Set("dedup", "true")
	u.RawQuery = params.Encode()
	return &u
}

func nativeConfig(cfg Config, b BackendConfig) remote.NativeConfig {
	return remote.NativeConfig{
		Address:          b.GRPC.Address,
		Transport:        b.GRPC.TLS,
		Compress:         b.GRPC.Compress,
		MaxConcurrent:    cfg.MaxConcurrentPerBackend,
		MaxResponseBytes: cfg.MaxResponseBytes,
	}
}

func thanosConfig(cfg Config, b BackendConfig) remote.ThanosConfig {
	return remote.ThanosConfig{
		Address:          b.Thanos.Address,
		TLS:              b.Thanos.TLSConfig,
		Credentials:      b.HTTPClientConfig,
		MaxConcurrent:    cfg.MaxConcurrentPerBackend,
		MaxResponseBytes: cfg.MaxResponseBytes,
		MaxSamples:       cfg.MaxSamples,
	}
}
