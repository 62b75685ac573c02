package websocket

import (
	"crypto/x509"
	_ "embed"
	"os"
	"sync"
)

// rootsPEM are certificate authorities for images that have none (scratch): those of Mozilla's list that sign for Google Cloud,
// Azure and the usual ACME issuers, as Debian 12's ca-certificates packs them. Another authority is named with SSL_CERT_FILE.
//
//go:embed roots.pem
var rootsPEM []byte

// roots returns the image's own authorities (SSL_CERT_FILE and SSL_CERT_DIR included), else the embedded ones.
var roots = sync.OnceValue(func() *x509.CertPool {
	if pool, err := x509.SystemCertPool(); err == nil && (!pool.Equal(x509.NewCertPool()) || os.Getenv("SSL_CERT_FILE") != "") {
		return pool
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(rootsPEM)
	return pool
})
