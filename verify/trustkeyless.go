package verify

import (
	"net/url"

	"go.yaml.in/yaml/v3"
)

// keyless reads who may sign with a certificate, and whose certificates count.
func (r reader) keyless(n *yaml.Node, a *authority) error {
	k := &keylessAuthority{}
	a.keyless = k
	err := r.fields(n, "keyless", map[string]func(*yaml.Node) error{
		"url":          r.url(&k.url, "keyless.url"),
		"trustRootRef": r.rootRef(&k.rootRef, "keyless.trustRootRef"),
		"ca-cert":      func(n *yaml.Node) error { return r.caCert(n, k) },
		"insecureIgnoreSCT": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
				return r.errorf(n, "keyless.insecureIgnoreSCT must be true or false")
			}
			return n.Decode(&k.ignoreSCT)
		},
		"identities": func(n *yaml.Node) error {
			return r.items(n, "keyless.identities", maxIdentities, func(_ int, n *yaml.Node) error {
				i, err := r.identity(n)
				k.identities = append(k.identities, i)
				return err
			})
		},
	})
	switch {
	case err != nil:
		return err
	case k.url != "" && k.ca != nil:
		return r.errorf(n, "keyless has both url and ca-cert; an authority is one or the other")
	case len(k.identities) == 0:
		// Without one, anybody with an account somewhere could sign.
		return r.errorf(n, "keyless.identities is missing")
	}
	for _, i := range k.identities {
		switch {
		case k.ca == nil && i.issuer.any:
			return r.errorf(n, "an identity needs issuer or issuerRegExp: the same name means somebody else elsewhere")
		case k.ca == nil && i.subject.all:
			return r.errorf(n, "subjectRegExp %q matches every name: anybody with an account could sign", i.subject.text)
		}
	}
	return nil
}

// identity reads one name, or expression, for each of issuer and subject.
func (r reader) identity(n *yaml.Node) (identity, error) {
	var issuer, subject, issuerRE, subjectRE string
	var i identity
	err := r.fields(n, "keyless.identities", map[string]func(*yaml.Node) error{
		"issuer": r.str(&issuer, "issuer"), "issuerRegExp": r.str(&issuerRE, "issuerRegExp"),
		"subject": r.str(&subject, "subject"), "subjectRegExp": r.str(&subjectRE, "subjectRegExp"),
	})
	if err != nil {
		return i, err
	}
	if i.issuer, err = newPattern(issuer, issuerRE); err != nil {
		return i, r.errorf(n, "issuer: %v", err)
	}
	if i.subject, err = newPattern(subject, subjectRE); err != nil {
		return i, r.errorf(n, "subject: %v", err)
	}
	if i.subject.any {
		return i, r.errorf(n, "an identity needs subject or subjectRegExp")
	}
	return i, nil
}

// caCert reads an authority of one's own from its certificates.
func (r reader) caCert(n *yaml.Node, k *keylessAuthority) error {
	var data string
	at := n
	err := r.fields(n, "ca-cert", map[string]func(*yaml.Node) error{
		"data":      func(n *yaml.Node) error { at = n; return r.str(&data, "ca-cert.data")(n) },
		"secretRef": r.unsupported("ca-cert.secretRef", "; put the certificates themselves into ca-cert.data"),
		"kms":       r.unsupported("ca-cert.kms", "; put the certificates themselves into ca-cert.data"),
	})
	if err != nil {
		return err
	}
	if k.ca, err = ownAuthority([]byte(data)); err != nil {
		return r.errorf(at, "ca-cert.data: %v", err)
	}
	return nil
}

// ctlog reads what is asked of a transparency log. "ctlog: {}" is how a
// cluster says that none is asked for, off then tells.
func (r reader) ctlog(n *yaml.Node, a *authority) (off bool, err error) {
	l := &logDemand{}
	err = r.fields(n, "ctlog", map[string]func(*yaml.Node) error{
		"url":          r.url(&l.url, "ctlog.url"),
		"trustRootRef": r.rootRef(&l.rootRef, "ctlog.trustRootRef"),
	})
	if err != nil {
		return false, err
	}
	if *l == (logDemand{}) {
		return true, nil
	}
	a.log = l
	return false, nil
}

// timestamp reads what is asked of a timestamp authority.
func (r reader) timestamp(n *yaml.Node, a *authority) error {
	a.timestamp = &timeDemand{}
	return r.fields(n, "rfc3161timestamp", map[string]func(*yaml.Node) error{
		"trustRootRef": r.rootRef(&a.timestamp.rootRef, "rfc3161timestamp.trustRootRef"),
	})
}

// witnesses settles what is demanded besides the signature. A certificate is
// good for minutes: unless the policy says otherwise, a log has to say when.
func (r reader) witnesses(n *yaml.Node, a *authority, logOff bool) error {
	if a.keyless != nil && a.log == nil && a.timestamp == nil && !logOff {
		a.log = &logDemand{}
	}
	if a.static != nil && (a.log != nil || logOff || a.timestamp != nil) {
		return r.errorf(n, "a static authority looks at no signature: ctlog and rfc3161timestamp mean nothing there")
	}
	return nil
}

// url stores an https or http address. It is compared with those in the trust
// root, never asked.
func (r reader) url(dst *string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if err := r.str(dst, what)(n); err != nil {
			return err
		}
		u, err := url.Parse(*dst)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return r.errorf(n, "%s %q is not an address", what, *dst)
		}
		return nil
	}
}

// rootRef stores the name of a trust root, which becomes a file's name.
func (r reader) rootRef(dst *string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if err := r.str(dst, what)(n); err != nil {
			return err
		}
		if !validPolicyName(*dst) {
			return r.errorf(n, "%s %q is not a name (lower-case letters, digits, - and .)", what, *dst)
		}
		return nil
	}
}
