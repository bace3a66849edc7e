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
	"github.com/xmpp-push/push/wishes"
)

// ErrKey: a row is encrypted with a key that Options.Keys lacks. Add it, and remove a key only after Store.Reseal.
var ErrKey = errors.New("sqlstore: the key that the row is encrypted with is missing from Options.Keys")

// Keyring encrypts with AES-256-GCM what is secret in a registration, its publish options and what the client asked for, and what is kept of messages that wait;
// account, service, node and client ID stay readable. What is sealed is bound to its account, key and column: it cannot be moved to another. The zero
// value encrypts nothing.
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

// seal returns data as it is stored, tied to its place in the database: the parts of its name.
func (s *sealer) seal(data []byte, place ...string) []byte {
	if s.current == "" {
		return data
	}
	return s.keys[s.current].Seal(nil, nil, data, binding(place))
}

// open undoes seal, by whichever key it was.
func (s *sealer) open(data []byte, keyID string, place ...string) ([]byte, error) {
	if keyID == "" {
		return data, nil
	}
	aead := s.keys[keyID]
	if aead == nil {
		return nil, fmt.Errorf("%w: ID %q", ErrKey, keyID)
	}
	opened, err := aead.Open([]byte{}, nil, data, binding(place))
	if err != nil {
		return nil, fmt.Errorf("it does not open with key %q: %w", keyID, err)
	}
	return opened, nil
}

// binding is what sealed data is tied to.
func binding(place []string) []byte {
	var b []byte
	for _, s := range place {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(append(b, ' '), s...)
	}
	return b
}

// secrets are the parts of a registration that are sealed, as they are stored.
type secrets struct {
	options, wishes sql.Null[[]byte]
	keyID           string
}

// sealed returns the secrets of a registration.
func (s *sealer) sealed(r *push.Registration) (sec secrets, err error) {
	if r.Options != nil {
		data, err := json.Marshal(r.Options)
		if err != nil {
			return sec, err
		}
		sec.options = sql.Null[[]byte]{V: s.seal(data, r.Account, r.Service, r.Node), Valid: true}
	}
	if !r.Wishes.Empty() {
		data, err := r.Wishes.MarshalBinary()
		if err != nil {
			return sec, err
		}
		sec.wishes = sql.Null[[]byte]{V: s.seal(data, r.Account, r.Service, r.Node, "wishes"), Valid: true}
	}
	if sec.options.Valid || sec.wishes.Valid {
		sec.keyID = s.current
	}
	return sec, nil
}

// reveal puts its secrets into r. Its errors do not quote them.
func (s *sealer) reveal(sec secrets, r *push.Registration) error {
	if sec.options.Valid {
		data, err := s.open(sec.options.V, sec.keyID, r.Account, r.Service, r.Node)
		if err != nil {
			return fmt.Errorf("options: %w", err)
		}
		if err := json.Unmarshal(data, &r.Options); err != nil {
			return errors.New("options are no JSON array of fields")
		}
		if r.Options == nil {
			return errors.New("options are the JSON value null")
		}
	}
	if sec.wishes.Valid {
		data, err := s.open(sec.wishes.V, sec.keyID, r.Account, r.Service, r.Node, "wishes")
		if err != nil {
			return fmt.Errorf("wishes: %w", err)
		}
		r.Wishes = new(wishes.Wishes)
		if err := r.Wishes.UnmarshalBinary(data); err != nil {
			return errors.New("wishes are not as this release writes or reads them")
		}
	}
	return nil
}
