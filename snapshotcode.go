package push

import (
	"encoding/binary"
	"fmt"
)

// snapshotWriter appends values. Its times are relative to base.
type snapshotWriter struct {
	b    []byte
	base instant
}

func (e *snapshotWriter) uint(u uint64)  { e.b = binary.AppendUvarint(e.b, u) }
func (e *snapshotWriter) int(i int64)    { e.b = binary.AppendVarint(e.b, i) }
func (e *snapshotWriter) fixed(u uint64) { e.b = binary.LittleEndian.AppendUint64(e.b, u) }

func (e *snapshotWriter) bytes(b []byte) {
	e.uint(uint64(len(b)))
	e.b = append(e.b, b...)
}

func (e *snapshotWriter) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *snapshotWriter) key(k Key) {
	e.string(k.Service)
	e.string(k.Node)
}

// instant writes a time; none is one byte.
func (e *snapshotWriter) instant(t instant) {
	if t == 0 {
		e.b = append(e.b, 0)
		return
	}
	d := int64(t - e.base)
	e.uint(uint64(d)<<1 ^ uint64(d>>63) + 1)
}

func flagBits(flags ...bool) (b byte) {
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return b
}

// snapshotReader reads what an snapshotWriter wrote. After an error it reads zeros.
type snapshotReader struct {
	b    []byte
	base instant
	err  error
}

func (d *snapshotReader) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

func (d *snapshotReader) take(n int) []byte {
	if n > len(d.b) {
		d.fail("it ends too early")
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *snapshotReader) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *snapshotReader) uint() uint64 {
	u, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("it ends in a number")
		return 0
	}
	d.b = d.b[n:]
	return u
}

func (d *snapshotReader) limited(most uint64) uint64 {
	u := d.uint()
	if u > most {
		d.fail("a number of %d, more than %d", u, most)
		return 0
	}
	return u
}

// count reads the length of a list whose elements take at least size bytes each.
func (d *snapshotReader) count(size int) int { return int(d.limited(uint64(len(d.b) / size))) }

func (d *snapshotReader) int() int64 {
	i, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("it ends in a number")
		return 0
	}
	d.b = d.b[n:]
	return i
}

func (d *snapshotReader) fixed() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *snapshotReader) bytes() []byte  { return d.take(int(d.limited(uint64(len(d.b))))) }
func (d *snapshotReader) string() string { return string(d.bytes()) }
func (d *snapshotReader) key() Key       { return Key{Service: d.string(), Node: d.string()} }
func (d *snapshotReader) instant() instant {
	u := d.uint()
	if u == 0 {
		return 0
	}
	u--
	t := d.base + instant(int64(u>>1)^-int64(u&1))
	if t == 0 {
		d.fail("a time of none")
	}
	return t
}

// registration reads the place of one in the account's list.
func (d *snapshotReader) registration(a *Account) *registration {
	i := d.uint()
	if i >= uint64(len(a.regs)) {
		d.fail("registration %d of %d", i, len(a.regs))
		return nil
	}
	return a.regs[i]
}
