package push

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"mellium.im/xmpp/jid"
)

// prepared returns a JID in its prepared form, a copy. Plain lower-case ASCII is in that form already.
func prepared(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if isPrepared(s) {
		return strings.Clone(s), nil
	}
	j, err := jid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%q is not a JID: %w", cut(s, 100), err)
	}
	p := j.String()
	if again, err := jid.Parse(p); err != nil || again.String() != p { // of "a.." the parser makes "a.", of that "a"
		return "", fmt.Errorf("%q is not a JID: its prepared form is not that of itself", cut(s, 100))
	}
	return p, nil
}

// isPrepared reports whether s is surely a JID that preparation leaves alone.
func isPrepared(s string) bool {
	bareEnd := strings.IndexByte(s, '/')
	if bareEnd < 0 {
		bareEnd = len(s)
	} else if bareEnd == len(s)-1 {
		return false
	}
	local, domain := "", s[:bareEnd]
	if i := strings.IndexByte(domain, '@'); i > 0 {
		local, domain = domain[:i], domain[i+1:]
	}
	if domain == "" || len(s) > 1023 || domain[0] == '.' || domain[0] == '-' || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") {
		return false
	}
	for i := range len(local) {
		if b := local[i]; !('a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '.' || b == '-' || b == '_' || b == '+') {
			return false
		}
	}
	for i := range len(domain) {
		if b := domain[i]; !('a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '.' || b == '-') {
			return false
		}
	}
	if strings.Contains(domain, "--") || strings.Contains(domain, "-.") || strings.Contains(domain, ".-") || strings.HasSuffix(domain, "-") {
		return false
	}
	for i := bareEnd; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// bare returns a JID without its resource.
func bare(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i]
	}
	return s
}

// resource returns the resource of a JID, or nothing.
func resource(s string) string {
	_, r, _ := strings.Cut(s, "/")
	return r
}

// cut shortens s for an error message.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// domain returns the domain of a bare JID.
func domain(account string) string {
	for i := range len(account) {
		if account[i] == '@' {
			return account[i+1:]
		}
	}
	return account
}
