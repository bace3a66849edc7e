package push

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// The first and some later vectors of the reference implementation: key 00 01 … 0f, input 00 01 … of each length.
func TestSipHash(t *testing.T) {
	k := hashKey{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	input := make([]byte, 64)
	for i := range input {
		input[i] = byte(i)
	}
	for n, want := range map[int]uint64{
		0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 2: 0x0d6c8009d9a94f5a, 3: 0x85676696d7fb7e2d,
		8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5, 63: 0x958a324ceb064572,
	} {
		assert.Equal(t, want, k.sipHash(string(input[:n])), "%d bytes", n)
	}
	assert.NotEqual(t, newHashKey(), newHashKey())
}

func BenchmarkSipHash(b *testing.B) {
	k := newHashKey()
	for b.Loop() {
		k.sipHash("0123456789abcdef0123")
	}
}
