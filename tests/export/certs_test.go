package export

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

type certFiles struct{ ca, serverCert, serverKey, clientCert, clientKey string }

// certificates makes an authority, a server on loopback and a client.
func certificates(t testing.TB, dir string) certFiles {
	t.Helper()
	put := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	issue := func(name string, tmpl x509.Certificate) (cert, key string) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.SerialNumber, tmpl.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		parent, by := authority, authorityKey
		if parent == nil {
			parent, by = &tmpl, k
		}
		der, err := x509.CreateCertificate(rand.Reader, &tmpl, parent, &k.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		kder, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		if authority == nil {
			if authority, err = x509.ParseCertificate(der); err != nil {
				t.Fatal(err)
			}
			authorityKey = k
		}
		return put(name+".pem", "CERTIFICATE", der), put(name+".key", "PRIVATE KEY", kder)
	}
	var c certFiles
	c.ca, _ = issue("authority", x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	c.serverCert, c.serverKey = issue("server", x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	c.clientCert, c.clientKey = issue("client", x509.Certificate{
		DNSNames: []string{"client"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return c
}
