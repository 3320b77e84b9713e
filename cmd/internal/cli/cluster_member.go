package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	commonconfig "github.com/prometheus/common/config"
)

const (
	// memberTimeout bounds a request to a member, and with it a drain.
	memberTimeout = 2 * time.Minute
	// maxAnswerBytes bounds the answer of a member.
	maxAnswerBytes = 256 << 20
)

// memberFlags say which member is asked and how it is reached.
type memberFlags struct {
	url string
	// configFile has TLS and authentication.
	configFile string
}

// get asks for something of the API and decodes the data of the answer.
func (m *memberFlags) get(ctx context.Context, path string, query url.Values, data any) error {
	body, err := m.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	envelope := struct {
		Data any `json:"data"`
	}{data}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return fmt.Errorf("answer of %s is not what a member answers: %w", m.url, err)
	}
	return nil
}

// do returns the body of a successful answer.
func (m *memberFlags) do(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	client, err := m.client()
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(m.url)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("--url %q is not a URL as http://host:port", m.url)
	}
	target := base.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask member: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer of %s: %w", base.Redacted(), err)
	case len(body) > maxAnswerBytes:
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", base.Redacted(), maxAnswerBytes)
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s answers %s: %s", base.Redacted(), resp.Status, reason(body))
	}
	return body, nil
}

func (m *memberFlags) client() (*http.Client, error) {
	cfg := &commonconfig.DefaultHTTPClientConfig
	if m.configFile != "" {
		var err error
		if cfg, _, err = commonconfig.LoadHTTPConfigFile(m.configFile); err != nil {
			return nil, fmt.Errorf("http client configuration %q: %w", m.configFile, err)
		}
	}
	return commonconfig.NewClientFromConfig(*cfg, "tocsin")
}

// reason is the error that an answer names, or the beginning of what it says.
func reason(body []byte) string {
	var envelope struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &envelope) == nil && envelope.Error != "" {
		return envelope.Error
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return text
}
