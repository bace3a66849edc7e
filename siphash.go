package push

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync"
)

// A stanza's ID is remembered as a hash under a secret key, so that nobody who can choose an ID can choose one that suppresses the
// notification of another. The key is the account's own and goes where the account goes: a hash means the same after a restart and
// on another machine.

// hashKey is the key of an account's hashes. The zero key was not drawn yet.
type hashKey [2]uint64

// drawn is randomness for the next keys; the system is asked for that of many at a time.
var drawn struct {
	mu   sync.Mutex
	all  [1024]byte
	left []byte
}

func newHashKey() (k hashKey) {
	drawn.mu.Lock()
	defer drawn.mu.Unlock()
	for k == (hashKey{}) {
		if len(drawn.left) == 0 {
			_, _ = rand.Read(drawn.all[:]) // never fails
			drawn.left = drawn.all[:]
		}
		b := drawn.left[:16]
		k = hashKey{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
		clear(b)
		drawn.left = drawn.left[16:]
	}
	return k
}

// sipHash is SipHash-2-4 (Aumasson, Bernstein: SipHash: a fast short-input PRF, 2012).
func (k hashKey) sipHash(s string) uint64 {
	v0, v1, v2, v3 := k[0]^0x736f6d6570736575, k[1]^0x646f72616e646f6d, k[0]^0x6c7967656e657261, k[1]^0x7465646279746573
	last := uint64(len(s)) << 56
	for ; len(s) >= 8; s = s[8:] {
		m := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		v3 ^= m
		v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
		v0 ^= m
	}
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	v3 ^= last
	v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
	v0 ^= last
	v2 ^= 0xff
	v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
	v0, v1, v2, v3 = sipRound(sipRound(v0, v1, v2, v3))
	return v0 ^ v1 ^ v2 ^ v3
}

func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v1
	v0 += v3
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
