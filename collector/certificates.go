package collector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	commonconfig "github.com/prometheus/common/config"
)

// scrapeClientOptions are for the HTTP clients of scrape pools. They read
// certificates from files when a target is scraped, as they read all other
// credentials. Prometheus' own read them once before, and a pool whose client
// can't has no targets; a file may be mounted a minute after the configuration
// that names it has come.
func scrapeClientOptions() []commonconfig.HTTPClientOption {
	return []commonconfig.HTTPClientOption{
		commonconfig.WithNewTLSConfigFunc(lateTLSConfig),
		commonconfig.WithSecretManager(lateFiles{}),
	}
}

// withoutFiles is what of the settings is known before any file is read. A
// client certificate is in files if a part of it is.
func withoutFiles(cfg commonconfig.TLSConfig) commonconfig.TLSConfig {
	cfg.CAFile = ""
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		cfg.Cert, cfg.CertFile, cfg.Key, cfg.KeyFile = "", "", "", ""
	}
	return cfg
}

// lateTLSConfig is a commonconfig.NewTLSConfigFunc. It turns the names of files
// in cfg, which is the client's own copy, into references to lateFiles, so that
// the client looks at the files before each request and, when they have
// changed, takes them on.
func lateTLSConfig(ctx context.Context, cfg *commonconfig.TLSConfig, opts ...commonconfig.TLSConfigOption) (*tls.Config, error) {
	known := withoutFiles(*cfg)
	conf, err := commonconfig.NewTLSConfigWithContext(ctx, &known, opts...)
	if err != nil {
		return nil, err
	}
	if cfg.CAFile != "" {
		conf.RootCAs = x509.NewCertPool() // Until the file is read nobody is trusted.
		cfg.CAFile, cfg.CARef = "", cfg.CAFile
	}
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		conf.GetClientCertificate = clientCertificate(*cfg)
	}
	if cfg.CertFile != "" {
		cfg.CertFile, cfg.CertRef = "", cfg.CertFile
	}
	if cfg.KeyFile != "" {
		cfg.KeyFile, cfg.KeyRef = "", cfg.KeyFile
	}
	return conf, nil
}

// clientCertificate reads the certificate for each handshake.
func clientCertificate(cfg commonconfig.TLSConfig) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := textOrFile(r.Context(), cfg.Cert, cfg.CertFile)
		if err != nil {
			return nil, err
		}
		key, err := textOrFile(r.Context(), string(cfg.Key), cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			return nil, fmt.Errorf("client certificate %s with key %s: %w", cfg.CertFile, cfg.KeyFile, err)
		}
		return &pair, nil
	}
}

func textOrFile(ctx context.Context, text, file string) (string, error) {
	if file == "" {
		return text, nil
	}
	return commonconfig.NewFileSecret(file).Fetch(ctx)
}

// lateFiles is the content of files for requests; for whoever makes a client,
// which is nothing that could be cancelled, all files are empty still.
type lateFiles struct{}

var _ commonconfig.SecretManager = lateFiles{}

// Fetch is part of commonconfig.SecretManager.
func (lateFiles) Fetch(ctx context.Context, file string) (string, error) {
	if ctx.Done() == nil {
		return "", nil
	}
	return commonconfig.NewFileSecret(file).Fetch(ctx)
}
