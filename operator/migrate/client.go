package migrate

import (
	v1 "github.com/tocsin-rules/tocsin/api/v1"
)

// client migrates how the collector shows who it is.
func (m *migration) client(obj object, f fields, t *targets) v1.HTTPClientConfig {
	var out v1.HTTPClientConfig
	if a, ok := f.sub("authorization"); ok {
		out.Authorization = &v1.Auth{Type: a.text("type"), Credentials: m.secret(obj, a, "credentials", t.secrets)}
		m.left(obj, a, nil)
	}
	if token := m.secret(obj, f, "bearerTokenSecret", t.secrets); token != nil {
		out.Authorization = &v1.Auth{Credentials: token}
	}
	if b, ok := f.sub("basicAuth"); ok {
		out.BasicAuth = &v1.BasicAuth{Password: m.secret(obj, b, "password", t.secrets)}
		m.left(obj, b, reasons{"username": lost("the user name is not read from a Secret: write it here")})
	}
	if o, ok := f.sub("oauth2"); ok {
		out.OAuth2 = m.oauth2(obj, o, t)
	}
	if tls, ok := f.sub("tlsConfig"); ok {
		out.TLS = m.tls(obj, tls, t)
	}
	out.ProxyURL = f.text("proxyUrl")
	return out
}

func (m *migration) oauth2(obj object, f fields, t *targets) *v1.OAuth2 {
	out := &v1.OAuth2{ClientSecret: m.secret(obj, f, "clientSecret", t.secrets), TokenURL: f.text("tokenUrl")}
	f.into("scopes", &out.Scopes)
	f.into("endpointParams", &out.EndpointParams)
	if tls, ok := f.sub("tlsConfig"); ok {
		out.TLS = m.tls(obj, tls, t)
	}
	out.ProxyURL = f.text("proxyUrl")
	if _, ok := f.sub("clientId"); ok {
		out.ClientID = "CLIENT-ID"
		m.note(obj, Lost, f.at("clientId"), "the client's name is not read from a Secret or ConfigMap: write it in place of CLIENT-ID")
	}
	m.left(obj, f, nil)
	return out
}

func (m *migration) tls(obj object, f fields, t *targets) *v1.TLS {
	out := &v1.TLS{
		ServerName:         f.text("serverName"),
		InsecureSkipVerify: f.is("insecureSkipVerify"),
		MinVersion:         f.text("minVersion"),
		MaxVersion:         f.text("maxVersion"),
		CA:                 m.secretOrConfigMap(obj, f, "ca", t.secrets),
		Cert:               m.secretOrConfigMap(obj, f, "cert", t.secrets),
		Key:                m.secret(obj, f, "keySecret", t.secrets),
	}
	files := lost("collectors read no files of yours: put the content into a Secret")
	m.left(obj, f, reasons{"caFile": files, "certFile": files, "keyFile": files})
	return out
}

func (m *migration) secretOrConfigMap(obj object, f fields, key, namespace string) *v1.SecretSelector {
	either, ok := f.sub(key)
	if !ok {
		return nil
	}
	out := m.secret(obj, either, "secret", namespace)
	m.left(obj, either, reasons{"configMap": lost("is read from Secrets only: put the content into one")})
	return out
}

// secret takes a reference to a key of a Secret in the object's namespace, which
// is named where it is not understood.
func (m *migration) secret(obj object, f fields, key, namespace string) *v1.SecretSelector {
	ref, ok := f.sub(key)
	if !ok {
		return nil
	}
	out := &v1.SecretKeySelector{Name: ref.text("name"), Key: ref.text("key"), Namespace: namespace}
	ref.take("optional")
	if out.Name == "" && out.Key == "" {
		return nil // prometheus-operator takes this for none.
	}
	m.left(obj, ref, nil)
	return &v1.SecretSelector{Secret: out}
}
