package render

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/prometheus/common/config"

	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// client renders how a client shows who it is; secrets are read from files, so
// that new ones count without a change of the configuration.
func (c *credentials) client(field string, in v1.HTTPClientConfig) config.HTTPClientConfig {
	out := config.DefaultHTTPClientConfig
	if a := in.Authorization; a != nil {
		out.Authorization = &config.Authorization{Type: a.Type, CredentialsFile: c.file(field+"authorization.credentials", a.Credentials)}
	}
	if b := in.BasicAuth; b != nil {
		out.BasicAuth = &config.BasicAuth{Username: b.Username, PasswordFile: c.file(field+"basicAuth.password", b.Password)}
	}
	if o := in.OAuth2; o != nil {
		out.OAuth2 = c.oauth2(field+"oauth2.", *o)
	}
	if in.TLS != nil {
		out.TLSConfig = c.tls(field+"tls.", *in.TLS)
	}
	out.ProxyURL = c.proxy(field+"proxyUrl", in.ProxyURL)
	return out
}

func (c *credentials) oauth2(field string, in v1.OAuth2) *config.OAuth2 {
	out := &config.OAuth2{
		ClientID:         in.ClientID,
		ClientSecretFile: c.file(field+"clientSecret", in.ClientSecret),
		Scopes:           in.Scopes,
		TokenURL:         in.TokenURL,
		EndpointParams:   in.EndpointParams,
	}
	if in.TLS != nil {
		out.TLSConfig = c.tls(field+"tlsConfig.", *in.TLS)
	}
	out.ProxyURL = c.proxy(field+"proxyUrl", in.ProxyURL)
	return out
}

func (c *credentials) tls(field string, in v1.TLS) config.TLSConfig {
	if (in.Cert == nil) != (in.Key == nil) {
		c.fail(strings.TrimSuffix(field, "."), errors.New("client cert and key must be both set or both missing"))
	}
	return config.TLSConfig{
		ServerName:         in.ServerName,
		InsecureSkipVerify: in.InsecureSkipVerify,
		MinVersion:         c.tlsVersion(field+"minVersion", in.MinVersion),
		MaxVersion:         c.tlsVersion(field+"maxVersion", in.MaxVersion),
		CAFile:             c.file(field+"ca", in.CA),
		CertFile:           c.file(field+"cert", in.Cert),
		KeyFile:            c.file(field+"key", in.Key),
	}
}

func (c *credentials) tlsVersion(field, name string) config.TLSVersion {
	version, ok := config.TLSVersions[name]
	if !ok && name != "" {
		c.fail(field, fmt.Errorf("%q is none of TLS10, TLS11, TLS12 and TLS13", name))
	}
	return version
}

// proxy parses the URL of a proxy. What it needs to log in would be readable
// for everybody, and so it may not have it.
func (c *credentials) proxy(field, text string) config.URL {
	if text == "" {
		return config.URL{}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		c.fail(field, errors.New("is not a URL"))
	case u.User != nil:
		c.fail(field, errors.New("must not contain a user name or password"))
	case u.Scheme == "" || u.Host == "":
		c.fail(field, fmt.Errorf("%q has no scheme or no host", text))
	default:
		return config.URL{URL: u}
	}
	return config.URL{}
}
