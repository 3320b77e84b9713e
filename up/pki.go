package up

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/tocsin-rules/tocsin/up/pki"
)

// renewBefore is how long a certificate must still be valid at a start.
const renewBefore = 30 * 24 * time.Hour

// ensureCertificate keeps the certificate of an earlier start unless it is
// damaged or expires soon. Otherwise it makes a new one with a new authority,
// whose key is forgotten at once: nobody else can ever be let in.
func ensureCertificate(d dirs) error {
	if checkCertificate(d, time.Now().Add(renewBefore)) == nil {
		return nil
	}
	files, err := pki.New(time.Now(), net.IPv4(127, 0, 0, 1))
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	return errors.Join(
		writeFile(d.ca(), files.CA), writeFile(d.cert(), files.Cert), writeFile(d.key(), files.Key),
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
