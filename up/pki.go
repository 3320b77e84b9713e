package up

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

const (
	certificateLife = 365 * 24 * time.Hour
	// renewBefore is how long a certificate must still be valid at a start.
	renewBefore = 30 * 24 * time.Hour
	// clockSlack keeps a certificate valid when the clock is set back a little.
	clockSlack = time.Hour
)

// ensureCertificate keeps the certificate of an earlier start unless it is
// damaged or expires soon. Otherwise it makes a new one with a new authority,
// whose key is forgotten at once: nobody else can ever be let in.
func ensureCertificate(d dirs) error {
	if checkCertificate(d, time.Now().Add(renewBefore)) == nil {
		return nil
	}
	files, err := newCertificate(time.Now())
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	return errors.Join(
		writeFile(d.ca(), files.ca), writeFile(d.cert(), files.cert), writeFile(d.key(), files.key),
	)
}

// checkCertificate tells what is wrong with the certificate at a time.
func checkCertificate(d dirs, at time.Time) error {
	pair, err := tls.LoadX509KeyPair(d.cert(), d.key())
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(d.ca())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: at, DNSName: "127.0.0.1",
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return err
}

// certificate holds PEM files.
type certificate struct{ ca, cert, key []byte }

func newCertificate(now time.Time) (certificate, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, err
	}
	ca := certTemplate("Tocsin one-machine CA", now)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := certTemplate("Tocsin one-machine process", now)
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return certificate{}, err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return certificate{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return certificate{}, err
	}
	return certificate{
		ca:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// certTemplate has no serial number, for which x509 chooses a random one.
func certTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSlack),
		NotAfter:  now.Add(certificateLife),
	}
}
