// Package webpush encrypts a message for a device as Web Push does (RFC 8291 over RFC 8188) and signs the token with which a server tells a push
// service who it is (RFC 8292). Both are functions of keys that the device made; nothing is kept.
package webpush

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// PublicBytes is the length of a P-256 public key as a raw uncompressed point, AuthBytes that of an authentication secret (RFC 8291 §2, §3.2).
	PublicBytes, AuthBytes = 65, 16
	// recordSize is what push services can be expected to take (RFC 8291 §4): the message is one record, and no larger.
	recordSize = 4096
	saltBytes  = 16
	tagBytes   = 16
	headBytes  = saltBytes + 4 + 1 + PublicBytes
	// Overhead is how much larger an encrypted message is: header, delimiter and tag.
	Overhead = headBytes + 1 + tagBytes
	// MaxPlain is the largest message that fits.
	MaxPlain = recordSize - Overhead
)

var (
	// ErrPublic: not a point on P-256 in raw uncompressed form.
	ErrPublic = errors.New("not a raw uncompressed P-256 point")
	// ErrAuth: the authentication secret has another length than 16 bytes.
	ErrAuth = fmt.Errorf("not %d bytes", AuthBytes)
	// ErrTooLong: the message does not fit in one record.
	ErrTooLong = fmt.Errorf("webpush: the message has more than %d bytes", MaxPlain)
	// ErrKey: not the PKCS#8 encoding of a P-256 private key.
	ErrKey = errors.New("not a P-256 private key in PKCS#8")
)

// Check says what is wrong with the keys of a device, or nil.
func Check(public, auth []byte) error {
	if _, err := ecdh.P256().NewPublicKey(public); err != nil {
		return ErrPublic // its own text may quote bytes
	}
	if len(auth) != AuthBytes {
		return ErrAuth
	}
	return nil
}

// Encrypt appends plain, encrypted for the device that has the private key of public, as an aes128gcm body (RFC 8188 §2.1).
func Encrypt(dst, public, auth, plain []byte) ([]byte, error) {
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return dst, err
	}
	var salt [saltBytes]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return dst, err
	}
	return seal(dst, public, auth, plain, own, salt[:])
}

// seal is Encrypt with a given key and salt, each good for one message.
func seal(dst, public, auth, plain []byte, own *ecdh.PrivateKey, salt []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return dst, ErrTooLong
	}
	theirs, err := ecdh.P256().NewPublicKey(public)
	if err != nil {
		return dst, ErrPublic
	}
	if len(auth) != AuthBytes {
		return dst, ErrAuth
	}
	shared, err := own.ECDH(theirs)
	if err != nil {
		return dst, ErrPublic
	}
	ours := own.PublicKey().Bytes()

	// RFC 8291 §3.4: the key that both know, bound to the two public keys and to the device's secret.
	secret, err := hkdf.Key(sha256.New, shared, auth, "WebPush: info\x00"+string(public)+string(ours), sha256.Size)
	if err != nil {
		return dst, err
	}
	// RFC 8188 §2.2, §2.3.
	prk, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		return dst, err
	}
	key, err := hkdf.Expand(sha256.New, prk, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return dst, err
	}
	nonce, err := hkdf.Expand(sha256.New, prk, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return dst, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return dst, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return dst, err
	}
	dst = append(dst, salt...)
	dst = binary.BigEndian.AppendUint32(dst, recordSize)
	dst = append(append(dst, byte(len(ours))), ours...)
	record := make([]byte, 0, len(plain)+1)
	record = append(append(record, plain...), 2) // 2 ends the last record; there is no padding but what the message has of its own
	return aead.Seal(dst, nonce, record, nil), nil
}

// Claim is one claim of a token, whose value is text.
type Claim struct{ Name, Value string }

// TokenFor is how long a token is good. RFC 8292 §2 allows a day.
const TokenFor = 12 * time.Hour

// ParseKey checks a private key and returns its public one, raw and uncompressed.
func ParseKey(pkcs8 []byte) (public []byte, err error) {
	_, public, err = parseKey(pkcs8)
	return public, err
}

func parseKey(pkcs8 []byte) (*ecdsa.PrivateKey, []byte, error) {
	k, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, nil, ErrKey
	}
	private, ok := k.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, nil, ErrKey
	}
	public, err := private.PublicKey.ECDH()
	if err != nil {
		return nil, nil, ErrKey
	}
	return private, public.Bytes(), nil
}

// Token returns a token (RFC 7519) signed by ES256, the only algorithm of RFC 8292 §2, and the public key that it can be checked with. It has the
// claims given, but exp and, unless it is empty, sub are the server's.
func Token(pkcs8 []byte, claims []Claim, sub string, now time.Time) (token string, public []byte, err error) {
	private, public, err := parseKey(pkcs8)
	if err != nil {
		return "", nil, err
	}
	set := make(map[string]any, len(claims)+2)
	for _, c := range claims {
		set[c.Name] = c.Value
	}
	if sub != "" {
		set["sub"] = sub
	}
	set["exp"] = now.Add(TokenFor).Unix()
	body, err := json.Marshal(set)
	if err != nil {
		return "", nil, err
	}
	enc := base64.RawURLEncoding
	signed := enc.AppendEncode(nil, []byte(`{"typ":"JWT","alg":"ES256"}`))
	signed = append(signed, '.')
	signed = enc.AppendEncode(signed, body)
	hash := sha256.Sum256(signed)
	r, s, err := ecdsa.Sign(rand.Reader, private, hash[:])
	if err != nil {
		return "", nil, err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	signed = append(signed, '.')
	return string(enc.AppendEncode(signed, signature[:])), public, nil
}
