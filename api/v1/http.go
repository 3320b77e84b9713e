package v1

// HTTPClientConfig says how a client shows who it is and checks who it talks
// to.
type HTTPClientConfig struct {
	// Authorization header with credentials from a Secret.
	// +optional
	Authorization *Auth `json:"authorization,omitempty"`
	// User name and password.
	// +optional
	BasicAuth *BasicAuth `json:"basicAuth,omitempty"`
	// Certificates and their check.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// Token that is fetched with a client's credentials.
	// +optional
	OAuth2      *OAuth2 `json:"oauth2,omitempty"`
	ProxyConfig `json:",inline"`
}

// Auth is an Authorization header.
type Auth struct {
	// Scheme in the header. Default is Bearer. For Basic there is basicAuth.
	// +kubebuilder:validation:XValidation:rule="self != 'Basic' && self != 'basic'",message="authorization type cannot be set to \"Basic\", use basicAuth instead"
	// +optional
	Type string `json:"type,omitempty"`
	// What follows the scheme.
	// +optional
	Credentials *SecretSelector `json:"credentials,omitempty"`
}

// BasicAuth is a user name and a password.
type BasicAuth struct {
	// Name of the user.
	// +optional
	Username string `json:"username,omitempty"`
	// Password of the user.
	// +optional
	Password *SecretSelector `json:"password,omitempty"`
}

// TLS says how certificates are shown and checked.
// +kubebuilder:validation:XValidation:rule="has(self.cert) == has(self.key)",message="client cert and key must be both set or both missing"
type TLS struct {
	// Name that the server's certificate has to be for. Default is the address.
	// +optional
	ServerName string `json:"serverName,omitempty"`
	// Whether any certificate of the server is accepted.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
	// Oldest TLS version that is spoken. Default is TLS12.
	// +kubebuilder:validation:Enum=TLS10;TLS11;TLS12;TLS13
	// +optional
	MinVersion string `json:"minVersion,omitempty"`
	// Newest TLS version that is spoken. Default is TLS13.
	// +kubebuilder:validation:Enum=TLS10;TLS11;TLS12;TLS13
	// +optional
	MaxVersion string `json:"maxVersion,omitempty"`
	// Certificates of authorities that the server's certificate has to be signed
	// by. Default is those of the collector's image.
	// +optional
	CA *SecretSelector `json:"ca,omitempty"`
	// Certificate that is shown to the server.
	// +optional
	Cert *SecretSelector `json:"cert,omitempty"`
	// Key of the certificate that is shown to the server.
	// +optional
	Key *SecretSelector `json:"key,omitempty"`
}

// OAuth2 fetches a token with a client's credentials.
type OAuth2 struct {
	// Name of the client.
	// +optional
	ClientID string `json:"clientID,omitempty"`
	// Secret of the client.
	// +optional
	ClientSecret *SecretSelector `json:"clientSecret,omitempty"`
	// Scopes that the token is requested for.
	// +optional
	Scopes []string `json:"scopes,omitempty"`
	// Where the token is fetched.
	// +optional
	TokenURL string `json:"tokenURL,omitempty"`
	// Further parameters of the request for a token.
	// +optional
	EndpointParams map[string]string `json:"endpointParams,omitempty"`
	// Certificates, and their check, of the request for a token.
	// +optional
	TLS         *TLS `json:"tlsConfig,omitempty"`
	ProxyConfig `json:",inline"`
}

// ProxyConfig names a proxy.
type ProxyConfig struct {
	// Proxy of HTTP requests, without user name and password.
	// +kubebuilder:validation:MaxLength=2000
	// +kubebuilder:validation:XValidation:rule="isURL(self) && !self.contains('@')",message="proxyUrl must be a URL without user name and password"
	// +optional
	ProxyURL string `json:"proxyUrl,omitempty"`
}

// SecretSelector names something secret.
type SecretSelector struct {
	// Key of a Secret.
	// +optional
	Secret *SecretKeySelector `json:"secret,omitempty"`
}

// SecretKeySelector names the key of a Secret.
type SecretKeySelector struct {
	// Name of the Secret.
	Name string `json:"name"`
	// Key in the Secret.
	Key string `json:"key"`
	// Namespace of the Secret. A PodMonitoring takes Secrets of its own namespace,
	// an OperatorConfig of its own; for others the default is "default".
	// +optional
	Namespace string `json:"namespace,omitempty"`
}
