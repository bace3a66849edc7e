// Package packed writes numbers and strings as bytes, and reads them back from bytes that may be damaged.
package packed

import "encoding/binary"

// AppendInts appends numbers that are not negative.
func AppendInts(b []byte, ns ...int) []byte {
	for _, n := range ns {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// AppendStrings appends strings with their lengths.
func AppendStrings(b []byte, ss ...string) []byte {
	for _, s := range ss {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

// Decoder reads bytes that may be damaged, from the front. After the first bad one it gives zeros.
type Decoder struct {
	Rest string
	Bad  bool
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if d.Bad || d.Rest == "" {
		d.Bad, d.Rest = true, ""
		return 0
	}
	c := d.Rest[0]
	d.Rest = d.Rest[1:]
	return c
}

// Uint reads a number.
func (d *Decoder) Uint() (n uint64) {
	for shift := 0; shift < 63; shift += 7 {
		c := d.Byte()
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	d.Bad = true
	return 0
}

// Int reads a number.
func (d *Decoder) Int() int { return int(d.Uint()) }

// Count is the number of things that follow, each of a byte at least.
func (d *Decoder) Count() int {
	n := d.Uint()
	if n > uint64(len(d.Rest)) {
		d.Bad = true
		return 0
	}
	return int(n)
}

// String reads what AppendStrings wrote of one string.
func (d *Decoder) String() string {
	n := d.Count()
	s := d.Rest[:n]
	d.Rest = d.Rest[n:]
	return s
}
