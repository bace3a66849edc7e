package partition

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
)

// The encoding of what goes into the log: any struct of plain data, by reflection, so that a field that is added to an event is carried without a
// line here.
//
// A struct is a list of its exported fields that are not zero, each as a tag, a length and a value, and a zero tag at the end. A tag is 1 with a
// name after it, or the place of the name in names. A field that the reader does not have is skipped, so that a node of one minor version reads what
// one of the next has written; a kind of event or record that it does not have is refused (ErrUnknown).

// ErrUnknown: the bytes are of a version, or hold a kind of event or record, that this program does not know.
var ErrUnknown = errors.New("written by a later version")

// errMalformed: the bytes are nothing that this package wrote.
var errMalformed = errors.New("malformed")

// names are the names that have a short tag. Their order is part of the encoding: add at the end only.
var names = []string{
	"Account", "Session", "ID", "Stanza", "Stanzas", "From", "To", "Body", "Class", "Kind", "Held", "JID", "Client", "Key", "Service", "Node",
	"Options", "Var", "Type", "Values", "Registrations", "Bound", "IsBound", "Hibernated", "Extended", "IDs", "Content", "MessageID", "Details",
	"Chat", "UpTo", "Wishes", "After", "Now", "Number", "Reply", "Missing", "Condition", "Vetoed", "Incarnation", "Origin", "Enabled", "Health",
	"Succeeded", "Disabled", "Cause", "Errors", "Refusals",
	"session-open", "session-close", "session-restored", "push-enable", "push-disable", "ack-delayed", "acknowledged", "hibernation-start",
	"stanza-queued", "hibernation-end", "archive-added", "offline", "groupchat", "ping", "affiliation-none", "account-removed",
	"claim", "release", "begin", "end", "down", "tick", "alone", "import",
}

const firstTag = 2

var tagOf = func() map[string]uint64 {
	m := make(map[string]uint64, len(names))
	for i, n := range names {
		m[n] = uint64(i + firstTag)
	}
	return m
}()

func appendTag(b []byte, name string) []byte {
	if t, ok := tagOf[name]; ok {
		return binary.AppendUvarint(b, t)
	}
	return appendString(append(b, 1), name)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads from the front of some bytes. The first error sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail(errMalformed)
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail(errMalformed)
		return 0
	}
	r.b = r.b[size:]
	return n
}

// bytes returns a part of what is read, not a copy.
func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail(errMalformed)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) string() string { return string(r.bytes()) }

// count reads a number of things that have at least one byte each.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail(errMalformed)
		return 0
	}
	return int(n)
}

// name reads a tag; empty at the end of a struct.
func (r *reader) name() string {
	switch t := r.uint(); {
	case t == 0:
		return ""
	case t == 1:
		s := r.string()
		if _, short := tagOf[s]; s == "" || short {
			r.fail(errMalformed)
		}
		return s
	case t-firstTag < uint64(len(names)):
		return names[t-firstTag]
	default:
		r.fail(ErrUnknown)
		return ""
	}
}

// form is how a type is written and read.
type form struct {
	once  sync.Once
	write func(b []byte, v reflect.Value) []byte
	read  func(r *reader, v reflect.Value)
}

var forms sync.Map // reflect.Type to *form

var (
	timeType     = reflect.TypeFor[time.Time]()
	appenderType = reflect.TypeFor[encoding.BinaryAppender]()
	readerType   = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

// formOf returns the form of a type. It panics for a type that has none, which a test finds.
func formOf(t reflect.Type) *form {
	v, ok := forms.Load(t)
	if !ok {
		v, _ = forms.LoadOrStore(t, new(form))
	}
	f := v.(*form)
	f.once.Do(func() { f.write, f.read = build(t) })
	return f
}

// lazily finds the form of a part when it is used first, for types that contain themselves.
func lazily(t reflect.Type) func() *form {
	return sync.OnceValue(func() *form { return formOf(t) })
}

func build(t reflect.Type) (func([]byte, reflect.Value) []byte, func(*reader, reflect.Value)) {
	switch {
	case t == timeType:
		return func(b []byte, v reflect.Value) []byte {
				at := v.Interface().(time.Time)
				return binary.AppendUvarint(binary.AppendVarint(b, at.Unix()), uint64(at.Nanosecond()))
			}, func(r *reader, v reflect.Value) {
				sec, nano := r.int(), r.uint()
				if nano >= 1e9 {
					r.fail(errMalformed)
					return
				}
				v.Set(reflect.ValueOf(time.Unix(sec, int64(nano)).UTC()))
			}
	case reflect.PointerTo(t).Implements(appenderType) && reflect.PointerTo(t).Implements(readerType):
		return func(b []byte, v reflect.Value) []byte {
				p := reflect.New(t)
				p.Elem().Set(v)
				part, err := p.Interface().(encoding.BinaryAppender).AppendBinary(nil)
				if err != nil {
					panic(fmt.Sprintf("%v cannot be written: %v", t, err))
				}
				return append(binary.AppendUvarint(b, uint64(len(part))), part...)
			}, func(r *reader, v reflect.Value) {
				part := r.bytes()
				if r.err != nil {
					return
				}
				if err := v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(part); err != nil {
					r.fail(fmt.Errorf("%w: %w", errMalformed, err))
				}
			}
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(b []byte, v reflect.Value) []byte {
				if v.Bool() {
					return append(b, 1)
				}
				return append(b, 0)
			}, func(r *reader, v reflect.Value) {
				n := r.uint()
				if n > 1 {
					r.fail(errMalformed)
				}
				v.SetBool(n == 1)
			}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(b []byte, v reflect.Value) []byte { return binary.AppendVarint(b, v.Int()) }, func(r *reader, v reflect.Value) {
			n := r.int()
			if v.OverflowInt(n) {
				r.fail(errMalformed)
				return
			}
			v.SetInt(n)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(b []byte, v reflect.Value) []byte { return binary.AppendUvarint(b, v.Uint()) }, func(r *reader, v reflect.Value) {
			n := r.uint()
			if v.OverflowUint(n) {
				r.fail(errMalformed)
				return
			}
			v.SetUint(n)
		}
	case reflect.String:
		return func(b []byte, v reflect.Value) []byte { return appendString(b, v.String()) }, func(r *reader, v reflect.Value) { v.SetString(r.string()) }
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return func(b []byte, v reflect.Value) []byte {
					return append(binary.AppendUvarint(b, uint64(v.Len())), v.Bytes()...)
				},
				func(r *reader, v reflect.Value) { v.SetBytes(append([]byte{}, r.bytes()...)) }
		}
		elem := lazily(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
				b = binary.AppendUvarint(b, uint64(v.Len()))
				for i := range v.Len() {
					b = elem().write(b, v.Index(i))
				}
				return b
			}, func(r *reader, v reflect.Value) {
				n := r.count()
				list := reflect.MakeSlice(t, n, n)
				for i := range n {
					elem().read(r, list.Index(i))
				}
				v.Set(list)
			}
	case reflect.Array:
		elem := lazily(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
				for i := range v.Len() {
					b = elem().write(b, v.Index(i))
				}
				return b
			}, func(r *reader, v reflect.Value) {
				for i := range v.Len() {
					elem().read(r, v.Index(i))
				}
			}
	case reflect.Pointer: // never nil where it is written but as an element of a list, which has a flag for it
		elem := lazily(t.Elem())
		return func(b []byte, v reflect.Value) []byte {
				if v.IsNil() {
					return append(b, 0)
				}
				return elem().write(append(b, 1), v.Elem())
			}, func(r *reader, v reflect.Value) {
				if r.uint() == 0 {
					v.SetZero()
					return
				}
				if r.err == nil {
					v.Set(reflect.New(t.Elem()))
					elem().read(r, v.Elem())
				}
			}
	case reflect.Struct:
		return buildStruct(t)
	default:
		panic(fmt.Sprintf("%v is no plain data", t))
	}
}

func buildStruct(t reflect.Type) (func([]byte, reflect.Value) []byte, func(*reader, reflect.Value)) {
	type field struct {
		index int
		name  string
		form  func() *form
	}
	var fields []field
	byName := make(map[string]*field)
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			fields = append(fields, field{i, f.Name, lazily(f.Type)})
		}
	}
	for i := range fields {
		byName[fields[i].name] = &fields[i]
	}
	return func(b []byte, v reflect.Value) []byte {
			for i := range fields {
				f := &fields[i]
				fv := v.Field(f.index)
				if fv.IsZero() {
					continue
				}
				b = appendTag(b, f.name)
				// Most values are shorter than 128 bytes: room for one byte of length, moved if it takes more.
				at := len(b)
				b = f.form().write(append(b, 0), fv)
				if n := len(b) - at - 1; n < 0x80 {
					b[at] = byte(n)
				} else {
					var length [binary.MaxVarintLen64]byte
					size := binary.PutUvarint(length[:], uint64(n))
					b = append(b, length[:size-1]...)
					copy(b[at+size:], b[at+1:at+1+n])
					copy(b[at:], length[:size])
				}
			}
			return append(b, 0)
		}, func(r *reader, v reflect.Value) {
			for r.err == nil {
				name := r.name()
				if name == "" {
					return
				}
				part := reader{b: r.bytes()}
				f := byName[name]
				if f == nil || r.err != nil {
					continue
				}
				f.form().read(&part, v.Field(f.index))
				if part.err == nil && len(part.b) > 0 {
					part.err = errMalformed
				}
				if part.err != nil {
					r.fail(part.err)
				}
			}
		}
}

// appendValue appends v, a struct.
func appendValue(b []byte, v any) []byte {
	rv := reflect.ValueOf(v)
	return formOf(rv.Type()).write(b, rv)
}

// readValue reads into v, a pointer to a struct.
func readValue(r *reader, v any) {
	rv := reflect.ValueOf(v).Elem()
	formOf(rv.Type()).read(r, rv)
}

// Encode returns a struct of plain data as bytes with a version, for messages between nodes.
func Encode(version int, v any) []byte { return appendValue([]byte{byte(version)}, v) }

// Decode reads what Encode wrote into v, a pointer.
func Decode(data []byte, v any) error {
	r := &reader{b: data}
	if len(data) == 0 {
		r.fail(errMalformed)
	} else if r.version(data[0]); r.err == nil {
		r.b = data[1:]
		readValue(r, v)
	}
	return r.done()
}
