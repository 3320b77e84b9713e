// Package transport secures Tocsin's own gRPC protocols: mutual TLS wherever
// a port can be reached from another machine, plaintext on loopback only.
//
// It never speaks a protocol itself; the packages that do pass its listener
// and credentials to gRPC. Certificates are read again for every handshake,
// so that rotated files are used without a restart.
package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Config names the files that secure one gRPC endpoint. The zero value means
// plaintext, which Validate permits on loopback addresses only.
type Config struct {
	// CertFile and KeyFile are this process's own certificate, PEM.
	CertFile string `yaml:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty"`
	// CAFile holds the authorities that the other side's certificate must be
	// signed by, PEM. Both sides verify each other against it.
	CAFile string `yaml:"ca_file,omitempty"`
	// ServerName is the name that a client expects in the server's
	// certificate; empty means the host of the address that it dials.
	ServerName string `yaml:"server_name,omitempty"`
}

// Enabled tells whether the endpoint uses TLS.
func (c Config) Enabled() bool { return c != Config{} }

// Validate reports every fault of the configuration for an endpoint at
// address ("host:port").
func (c Config) Validate(address string) error {
	if !c.Enabled() {
		if !isLoopback(address) {
			return fmt.Errorf("gRPC address %q is not a loopback address: set a certificate, a key and a CA file", address)
		}
		return nil
	}
	var errs []error
	for _, f := range []struct{ what, name string }{
		{"certificate", c.CertFile}, {"key", c.KeyFile}, {"CA", c.CAFile},
	} {
		if f.name == "" {
			errs = append(errs, fmt.Errorf("mutual TLS for gRPC needs a %s file", f.what))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := c.load()
	return err
}

// Server returns the credentials of a gRPC server that demands a client
// certificate signed by the CA.
func (c Config) Server() credentials.TransportCredentials {
	if !c.Enabled() {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m, err := c.load()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion:   tls.VersionTLS12,
				NextProtos:   []string{"h2"},
				Certificates: []tls.Certificate{m.cert},
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ClientCAs:    m.ca,
			}, nil
		},
	})
}

// Client returns the credentials of a gRPC client. The CA is read once, the
// client certificate for every connection.
func (c Config) Client() (credentials.TransportCredentials, error) {
	if !c.Enabled() {
		return insecure.NewCredentials(), nil
	}
	m, err := c.load()
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    m.ca,
		ServerName: c.ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m, err := c.load()
			if err != nil {
				return nil, err
			}
			return &m.cert, nil
		},
	}), nil
}

type material struct {
	cert tls.Certificate
	ca   *x509.CertPool
}

func (c Config) load() (material, error) {
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return material{}, fmt.Errorf("load gRPC certificate %q and key %q: %w", c.CertFile, c.KeyFile, err)
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return material{}, fmt.Errorf("load gRPC CA: %w", err)
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM(pem) {
		return material{}, fmt.Errorf("load gRPC CA %q: no certificate in it", c.CAFile)
	}
	return material{cert: cert, ca: ca}, nil
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
