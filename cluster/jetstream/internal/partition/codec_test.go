package partition

import (
	"encoding"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xmpp-push/push"
)

// fill sets v to something random in which little is zero.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch {
	case v.Type() == timeType:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33)-1<<31, r.Int64N(1e9)).UTC()))
		return
	case v.CanAddr() && v.Addr().Type().Implements(appenderType) && v.Addr().Type().Implements(readerType):
		if _, ok := v.Addr().Interface().(encoding.BinaryAppender); ok {
			return // it has tests of its own, and what it can carry it knows itself
		}
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64N(120))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64N(200))
	case reflect.String:
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v.SetString(string(b))
	case reflect.Slice:
		if depth > 6 {
			return
		}
		n := 1 + r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Pointer:
		if depth < 6 && r.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && r.IntN(8) > 0 {
				fill(r, v.Field(i), depth+1)
			}
		}
	}
}

func someEvent(r *rand.Rand, t reflect.Type) push.Event {
	v := reflect.New(t)
	fill(r, v.Elem(), 0)
	return v.Elem().Interface().(push.Event)
}

// Every field of every event comes back, those that were added after this was written too.
func TestEventsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, typ := range events {
		for range 200 {
			ev := someEvent(r, typ)
			require.Equal(t, name, ev.Name())
			m := &Batch{Origin: Origin{"a", 7}, Number: 3, Events: []push.Event{ev, ev}, Wanted: []int{1}}
			b, err := m.AppendBinary(nil)
			require.NoError(t, err)
			got, err := ReadBatch(b)
			require.NoError(t, err)
			require.Equal(t, m, got)
		}
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var rs []Record
	for range 50 {
		for _, name := range []string{"claim", "release", "begin", "end", "down", "tick"} {
			v := reflect.New(records[name])
			fill(r, v.Elem(), 0)
			rs = append(rs, v.Elem().Interface().(Record))
		}
	}
	b := AppendRecords(nil, First, Origin{"node", 1 << 60}, rs)
	o, got, err := ReadRecords(b)
	require.NoError(t, err)
	assert.Equal(t, Origin{"node", 1 << 60}, o)
	assert.Equal(t, rs, got)
}

// The library's events are a closed set: each one that events.go has is known here.
func TestAllEventsAreKnown(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "..", "..", "events.go"), nil, 0)
	if os.IsNotExist(err) {
		t.Skip("the library's source is not here")
	}
	require.NoError(t, err)
	known := make(map[string]bool)
	for _, typ := range events {
		known[typ.Name()] = true
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		f, ok := node.(*ast.FuncDecl)
		if ok && f.Name.Name == "event" && f.Recv != nil {
			n++
			name := f.Recv.List[0].Type.(*ast.Ident).Name
			assert.True(t, known[name], "%s is not in events of message.go, so that no node could append it", name)
		}
		return true
	})
	assert.GreaterOrEqual(t, n, 14)
}

// What a later minor version adds to an event is skipped; a later version, a kind of event or record that is not known is refused.
func TestVersions(t *testing.T) {
	ev := push.Offline{Account: "juliet@example.com", Stanza: push.Stanza{ID: "m1", Class: push.ClassImportant}}
	raw := appendTag(nil, "offline")
	fields := appendValue(nil, ev)
	raw = append(raw, fields[:len(fields)-1]...)
	raw = append(appendString(append(raw, 1), "LaterField"), 3, 'a', 'b', 'c')
	raw = append(raw, 0)
	b := AppendBatch(nil, First, Origin{"a", 1}, 1, nil, 1, raw)
	m, err := ReadBatch(b)
	require.NoError(t, err)
	assert.Equal(t, []push.Event{ev}, m.Events)

	b[0] = byte(Version) + 1
	_, err = ReadBatch(b)
	assert.ErrorIs(t, err, ErrUnknown)
	_, err = ReadBatch(AppendBatch(nil, First, Origin{"a", 1}, 1, nil, 1, append(appendTag(nil, "sung"), 0)))
	assert.ErrorIs(t, err, ErrUnknown)
	o := AppendRecords(nil, First, Origin{"a", 1}, []Record{Claim{}})
	o[0] = byte(Version) + 1
	_, _, err = ReadRecords(o)
	assert.ErrorIs(t, err, ErrUnknown)
	_, _, err = New(nil, nil).restore([]byte{byte(Version) + 1, kindSnapshot, 0, 0})
	assert.ErrorIs(t, err, ErrUnknown)
}

// Whatever the bytes, reading them ends with an error or with what is written the same way again.
func FuzzRead(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, typ := range events {
		b, err := (&Batch{Origin: Origin{"a", 7}, Number: 3, Events: []push.Event{someEvent(r, typ)}}).AppendBinary(nil)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add(AppendRecords(nil, First, Origin{"b", 1}, []Record{Claim{}, Begin{Account: "a@b"}, End{}, Release{}}))
	f.Add(sealSnapshot(First, New(nil, nil).snapshot(), 1, 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadBatch(data); err == nil {
			b, err := m.AppendBinary(nil)
			require.NoError(t, err)
			again, err := ReadBatch(b)
			require.NoError(t, err)
			require.Equal(t, m, again)
		}
		if o, rs, err := ReadRecords(data); err == nil {
			_, again, err := ReadRecords(AppendRecords(nil, First, o, rs))
			require.NoError(t, err)
			require.Equal(t, rs, again)
		}
		s := New(nil, nil)
		if seq, own, err := s.restore(data); err == nil {
			again := New(nil, nil)
			_, _, err := again.restore(sealSnapshot(First, s.snapshot(), seq, own))
			require.NoError(t, err)
			require.Equal(t, s.snapshot(), again.snapshot())
		}
	})
}

// The partition of an account never changes: these are written down.
func TestPartitionsAreFixed(t *testing.T) {
	for account, want := range map[string]int{"juliet@example.com": 63, "romeo@example.net": 28, "": 1, "nurse@example.com": 14} {
		assert.Equal(t, want, Of(account, 64), account)
	}
	var n [64]int
	for i := range 64000 {
		n[Of("user"+time.Duration(i).String()+"@example.com", 64)]++
	}
	for p, c := range n {
		assert.InDelta(t, 1000, c, 150, "partition %d", p)
	}
}

func BenchmarkCodec(b *testing.B) {
	ev := push.ArchiveAdded{Account: "juliet@example.com", Stanza: push.Stanza{
		ID: "b2f0c7d4-7f5e-4d6e-9a45-4b2f21a9d7be", From: "romeo@example.net/orchard", To: "juliet@example.com", Class: push.ClassImportant,
	}}
	var buf []byte
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendEvent(buf[:0], ev)
		}
		b.ReportMetric(float64(len(buf)), "bytes/event")
	})
	data := AppendBatch(nil, First, Origin{"a", 1}, 1, nil, 1, AppendEvent(nil, ev))
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ReadBatch(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
