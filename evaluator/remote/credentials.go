package remote

import (
	"context"
	"net/http"
	"strings"

	"github.com/prometheus/common/config"
	"google.golang.org/grpc/credentials"
)

// callCredentials send the credentials and the headers of an HTTP client's
// configuration as metadata of gRPC calls. Secrets in files are read for each
// call, tokens fetched when they have expired.
type callCredentials struct{ headers http.RoundTripper }

var _ credentials.PerRPCCredentials = callCredentials{}

// newCallCredentials stacks the parts in the order in which HTTP clients do.
func newCallCredentials(cfg config.HTTPClientConfig) callCredentials {
	var rt http.RoundTripper = recorder{}
	if a := cfg.Authorization; a != nil {
		rt = config.NewAuthorizationCredentialsRoundTripper(a.Type, secret(a.Credentials, a.CredentialsFile), rt)
	}
	if b := cfg.BasicAuth; b != nil {
		rt = config.NewBasicAuthRoundTripper(secret(config.Secret(b.Username), b.UsernameFile), secret(b.Password, b.PasswordFile), rt)
	}
	if o := cfg.OAuth2; o != nil {
		key := secret(o.ClientSecret, o.ClientSecretFile)
		if o.ClientCertificateKey != "" || o.ClientCertificateKeyFile != "" {
			key = secret(o.ClientCertificateKey, o.ClientCertificateKeyFile)
		}
		rt = config.NewOAuth2RoundTripper(key, o, rt)
	}
	if h := cfg.HTTPHeaders; h != nil {
		rt = config.NewHeadersRoundTripper(h, rt)
	}
	return callCredentials{rt}
}

func secret(text config.Secret, file string) config.SecretReader {
	if file != "" {
		return config.NewFileSecret(file)
	}
	return config.NewInlineSecret(string(text))
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (c callCredentials) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://localhost", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.headers.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	metadata := map[string]string{}
	for name, values := range resp.Request.Header {
		metadata[strings.ToLower(name)] = strings.Join(values, ",")
	}
	return metadata, resp.Body.Close()
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. As over
// HTTP, it is up to the user whether the network is trusted.
func (c callCredentials) RequireTransportSecurity() bool { return false }

// recorder sends nothing: it answers with the request as it would be sent.
type recorder struct{}

// RoundTrip implements http.RoundTripper.
func (recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{Request: req, StatusCode: http.StatusOK, Body: http.NoBody}, nil
}
