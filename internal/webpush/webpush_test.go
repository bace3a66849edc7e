package webpush

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func decode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return b
}

// The values of RFC 8291 §5 and appendix A.
const (
	rfcPlain   = "When I grow up, I want to be a watermelon"
	rfcAuth    = "BTBZMqHH6r4Tts7J_aSIgg"
	rfcPublic  = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	rfcPrivate = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
	rfcSalt    = "DGv6ra1nlYgDCS1FRnbzlw"
	rfcBody    = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)

func TestRFC8291AppendixA(t *testing.T) {
	own, err := ecdh.P256().NewPrivateKey(decode(t, rfcPrivate))
	require.NoError(t, err)
	body, err := seal(nil, decode(t, rfcPublic), decode(t, rfcAuth), []byte(rfcPlain), own, decode(t, rfcSalt))
	require.NoError(t, err)
	assert.Equal(t, rfcBody, base64.RawURLEncoding.EncodeToString(body))
	assert.Len(t, body, len(rfcPlain)+Overhead)
}

func TestKeysAndSizesAreChecked(t *testing.T) {
	public, auth := decode(t, rfcPublic), decode(t, rfcAuth)
	require.NoError(t, Check(public, auth))
	off := append([]byte(nil), public...)
	off[64] ^= 1
	compressed := append([]byte{2}, public[1:33]...)
	for name, bad := range map[string][]byte{"empty": nil, "not on the curve": off, "compressed": compressed, "infinity": {0}, "too long": append(append([]byte(nil), public...), 0)} {
		assert.ErrorIs(t, Check(bad, auth), ErrPublic, name)
		_, err := Encrypt(nil, bad, auth, nil)
		assert.ErrorIs(t, err, ErrPublic, name)
	}
	assert.ErrorIs(t, Check(public, auth[1:]), ErrAuth)
	_, err := Encrypt(nil, public, auth[1:], nil)
	assert.ErrorIs(t, err, ErrAuth)

	body, err := Encrypt(nil, public, auth, make([]byte, MaxPlain))
	require.NoError(t, err)
	assert.Len(t, body, 4096)
	_, err = Encrypt(nil, public, auth, make([]byte, MaxPlain+1))
	assert.ErrorIs(t, err, ErrTooLong)
}

func TestEachMessageHasItsOwnKeyAndSalt(t *testing.T) {
	a, err := Encrypt(nil, decode(t, rfcPublic), decode(t, rfcAuth), []byte("x"))
	require.NoError(t, err)
	b, err := Encrypt(nil, decode(t, rfcPublic), decode(t, rfcAuth), []byte("x"))
	require.NoError(t, err)
	assert.NotEqual(t, a[:saltBytes], b[:saltBytes])
	assert.NotEqual(t, a[saltBytes+5:headBytes], b[saltBytes+5:headBytes])
}

func testKey(t testing.TB) []byte {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	return der
}

func TestOnlyP256PrivateKeys(t *testing.T) {
	public, err := ParseKey(testKey(t))
	require.NoError(t, err)
	assert.Len(t, public, PublicBytes)

	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, k := range map[string]any{"P-384": p384, "RSA": rsaKey} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		require.NoError(t, err)
		_, err = ParseKey(der)
		assert.ErrorIs(t, err, ErrKey, name)
	}
	_, err = ParseKey([]byte("hunter2"))
	assert.ErrorIs(t, err, ErrKey)
	assert.NotContains(t, err.Error(), "hunter2")
}

func TestTokenKeepsTheServersClaims(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	token, _, err := Token(testKey(t), []Claim{{"aud", "https://push.example.com"}, {"exp", "never"}, {"sub", "me"}}, "xmpp:example.com", now)
	require.NoError(t, err)
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	assert.JSONEq(t, `{"aud":"https://push.example.com","exp":1700043200,"sub":"xmpp:example.com"}`, string(decode(t, parts[1])))
	assert.JSONEq(t, `{"typ":"JWT","alg":"ES256"}`, string(decode(t, parts[0])))
	assert.Len(t, decode(t, parts[2]), 64)
}

func BenchmarkEncrypt(b *testing.B) {
	public, auth, plain := decode(b, rfcPublic), decode(b, rfcAuth), make([]byte, 700)
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encrypt(dst, public, auth, plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkToken(b *testing.B) {
	key := testKey(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Token(key, []Claim{{"aud", "https://push.example.com"}}, "xmpp:example.com", time.Unix(0, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
