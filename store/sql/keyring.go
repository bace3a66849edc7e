package sqlstore

import (
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/xmpp-push/push"
)

// ErrKey: a row is encrypted with a key that Options.Keys lacks. Add it, and remove a key only after Store.Reseal.
var ErrKey = errors.New("sqlstore: the key that the row is encrypted with is missing from Options.Keys")

// Keyring encrypts the publish options of registrations, which hold the secrets of push services, with AES-256-GCM; account, service,
// node and client ID stay readable. A row is bound to its account and key: it cannot be moved to another. The zero value encrypts
// nothing.
//
// To rotate, give all nodes the new key, then make it Current, run Store.Reseal once, and remove the old one. The same way leads from plain
// rows to encrypted ones and, with an empty Current, back. One key is good for 2^32 enables.
type Keyring struct {
	// Current is the ID of the key for rows that are written from now on. Empty: they are not encrypted.
	Current string
	// Keys has the keys by ID, 32 random bytes each. IDs are stored with each row, so short ones are best.
	Keys map[string][]byte
}

// sealer is a Keyring ready for use. Safe for simultaneous use.
type sealer struct {
	current string
	keys    map[string]cipher.AEAD
}

func newSealer(k Keyring) (*sealer, error) {
	s := &sealer{k.Current, make(map[string]cipher.AEAD)}
	if _, ok := k.Keys[k.Current]; k.Current != "" && !ok {
		return nil, fmt.Errorf("sqlstore: Options.Keys has no key with the ID %q, which Current names", k.Current)
	}
	for id, key := range k.Keys {
		if id == "" || len(key) != 32 {
			return nil, fmt.Errorf("sqlstore: key %q has %d bytes; a key has an ID and 32 random bytes", id, len(key))
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		if s.keys[id], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// seal returns what the columns options and key_id have to hold.
func (s *sealer) seal(account string, k push.Key, options []push.Field) (data []byte, keyID string, err error) {
	if options == nil {
		return nil, "", nil
	}
	data, err = json.Marshal(options)
	if err != nil || s.current == "" {
		return data, "", err
	}
	return s.keys[s.current].Seal(nil, nil, data, binding(account, k)), s.current, nil
}

// open undoes seal.
func (s *sealer) open(account string, k push.Key, column sql.Null[[]byte], keyID string) (options []push.Field, err error) {
	if !column.Valid {
		return nil, nil
	}
	data := column.V
	if keyID != "" {
		aead := s.keys[keyID]
		if aead == nil {
			return nil, fmt.Errorf("%w: ID %q", ErrKey, keyID)
		}
		if data, err = aead.Open(nil, nil, data, binding(account, k)); err != nil {
			return nil, fmt.Errorf("options do not open with key %q: %w", keyID, err)
		}
	}
	if err := json.Unmarshal(data, &options); err != nil {
		return nil, errors.New("options are no JSON array of fields") // the parser's text would quote them
	}
	if options == nil {
		return nil, errors.New("options are the JSON value null")
	}
	return options, nil
}

// binding is what a sealed row is tied to.
func binding(account string, k push.Key) []byte {
	var b []byte
	for _, s := range []string{account, k.Service, k.Node} {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(append(b, ' '), s...)
	}
	return b
}
