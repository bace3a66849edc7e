package push

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmpp/jid"
)

// TestPreparedWithoutAParser: which addresses are taken as they are, byte by byte; the parser agrees about each of them.
func TestPreparedWithoutAParser(t *testing.T) {
	const letters, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	wants := map[string]bool{
		"": false, "a": true, "example.com": true, "juliet@example.com": true, "juliet@example.com/balcony": true, "example.com/a@b/c": true,
		"@example.com": false, "juliet@": false, "juliet@/x": false, "/x": false, "example.com/": false, "juliet@example.com/": false, "a@b@c": false,
		".a": false, "-a": false, "a.": false, "a-": false, "a..b": false, "a--b": false, "a-.b": false, "a.-b": false, "a-b.c-d": true,
		"a/b..c--d-": true, ".-a--.-@example.com": true,
		"a/" + strings.Repeat("x", 1021): true, "a/" + strings.Repeat("x", 1022): false,
	}
	for b := range 256 {
		c := string([]byte{byte(b)})
		is := func(set string) bool { return strings.Contains(set, c) }
		wants["x"+c+"x@example.com"] = is(letters + digits + ".-_+/") // x/x@example.com is a domain with a resource
		wants["x"+c+"x.example.com"] = is(letters + digits + ".-@/")
		wants["example.com/x"+c+"x"] = b > ' ' && b < 0x7f
	}
	for s, want := range wants {
		require.Equal(t, want, isPrepared(s), "%q", s)
		j, err := jid.Parse(s)
		if want {
			require.NoError(t, err, s)
			require.Equal(t, s, j.String())
		}
		if p, err2 := prepared(s); s != "" {
			require.Equal(t, err == nil, err2 == nil, "%q", s)
			if err == nil {
				require.Equal(t, j.String(), p)
			}
		}
	}
	for _, s := range []string{"a..", "u@a...", "u@A../r"} { // there would be several addresses that are the same when they are stored
		p, err := prepared(s)
		require.ErrorContains(t, err, "is not a JID", "%q", s)
		require.Empty(t, p)
	}
	for _, s := range []string{"a@x/\x01", "a@x/\xff", "a@x/\ufffe", "a\ufffe@x", "a@x/\x7f"} { // what is no text of XML is no address
		p, err := prepared(s)
		assert.Error(t, err, "%q", s)
		assert.Empty(t, p)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"aäb", 3, "aäb"[:3] + "…"}, {"aäb", 2, "a…"}, {"äb", 1, "…"}, {"\x80\x80\x80", 2, "…"}} {
		assert.Equal(t, c.want, cut(c.s, c.n), "%q", c.s)
	}
}

func TestPartsOfAddresses(t *testing.T) {
	for s, want := range map[string][3]string{
		"juliet@example.com":            {"juliet@example.com", "", "example.com"},
		"example.com":                   {"example.com", "", "example.com"},
		"juliet@example.com/balcony":    {"juliet@example.com", "balcony", "example.com"},
		"juliet@example.com/by/the/way": {"juliet@example.com", "by/the/way", "example.com"},
	} {
		assert.Equal(t, want, [3]string{bare(s), resource(s), domain(bare(s))})
	}
}
