package partition

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"reflect"
	"time"

	"github.com/xmpp-push/push"
)

// Version is the latest version of what is written here that this program reads; it reads all before it. It is raised for what older programs must not skip;
// fields that they may skip need none. Nodes write the latest that all of them read. It is a variable for tests, which make themselves a later program.
var Version = 1

// First is the version that every program reads: what nodes must tell each other before they know what the others read is written in it.
const First = 1

// MaxEvents is how many events a Batch may have.
const MaxEvents = 1024

// Of returns the partition of an account among n. It is the same on every machine and in every version: FNV-1a, 64 bits, of the bare JID's bytes, its
// halves folded, modulo n.
func Of(account string, n int) int {
	h := Hash(account)
	return int((h ^ h>>32) % uint64(n))
}

// Hash is the fixed hash of an account's name.
func Hash(account string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(account))
	return h.Sum64()
}

// Origin is one life of a node: from its start, or from when it found that others took it for dead, to the next.
type Origin struct {
	Node string
	// Incarnation grows from life to life: see NextLife and Members.Begin.
	Incarnation uint64
}

// Batch is what a node appends to a partition at once: events in the order in which they came in.
type Batch struct {
	Origin
	// Number counts the batches of this Origin in this partition, from 1. One that comes again is ignored.
	Number uint64
	Events []push.Event
	// Wanted are the places in Events of those whose Decision the node waits for.
	Wanted []int
}

// Record is what the owner of a partition has done, for its successor to do again.
type Record interface{ record() }

// When says where a record has its place among the events: behind the last one that the owner had taken note of.
type When struct {
	// After is the sequence number of the batch that was taken note of last.
	After uint64
	// Now is the owner's time.
	Now time.Time
}

type (
	// Claim makes its writer the owner. It has its place where it is in the log.
	Claim struct{}
	// Release says that the owner has stopped, with nothing left to write.
	Release struct {
		// After is the sequence number of the last batch that it has taken note of, and shown. Zero of an earlier program.
		After uint64
	}
	// Begin is written before a publish goes out.
	Begin struct {
		When
		Account string
		Key     push.Key
	}
	// End is written when it was answered.
	End struct {
		When
		Account string
		Key     push.Key
		Reply   push.Reply
	}
	// Down closes the sessions of a node that is dead. Messages that were left to them since a time, which is lastWords before it was heard of last, are decided again.
	Down struct {
		When
		Origin Origin
		Since  time.Time
	}
	// Tick says that time has passed, with effects.
	Tick struct{ When }
)

func (Claim) record()   {}
func (Release) record() {}
func (Begin) record()   {}
func (End) record()     {}
func (Down) record()    {}
func (Tick) record()    {}

// Alone is an event of the cluster's own: what a node decided by itself while it could not reach the others. The library's events are a closed set, so it is
// made of one that only says which account it is about.
type Alone struct {
	push.AccountRemoved
	Told []Told
}

// Name is "alone".
func (Alone) Name() string { return "alone" }

// Import is another: registrations that a host had in a Store before it was a cluster.
type Import struct {
	push.AccountRemoved
	Registrations []push.Registration
}

// Name is "import".
func (Import) Name() string { return "import" }

// Told is a registration that was notified.
type Told struct {
	Key push.Key
	IDs []string
}

var records = kinds(map[string]any{"claim": Claim{}, "release": Release{}, "begin": Begin{}, "end": End{}, "down": Down{}, "tick": Tick{}})

// events are the kinds of events. A test compares the list with the library's.
var events = func() map[string]reflect.Type {
	m := make(map[string]any)
	for _, ev := range []push.Event{
		push.SessionOpen{}, push.SessionClose{}, push.PushEnable{}, push.PushDisable{}, push.AckDelayed{}, push.HibernationStart{}, push.StanzaQueued{},
		Alone{}, Import{}, push.HibernationEnd{}, push.ArchiveAdded{}, push.Offline{}, push.Groupchat{}, push.Ping{}, push.AffiliationNone{}, push.AccountRemoved{},
		push.SessionRestored{}, push.Acknowledged{}, push.ChatChanged{}, push.Displayed{}, push.SessionActive{}, push.SessionPresence{},
	} {
		m[ev.Name()] = ev
	}
	return kinds(m)
}()

func kinds(m map[string]any) map[string]reflect.Type {
	types := make(map[string]reflect.Type, len(m))
	for name, v := range m {
		types[name] = reflect.TypeOf(v)
	}
	return types
}

var recordNames = func() map[reflect.Type]string {
	m := make(map[reflect.Type]string)
	for n, t := range records {
		m[t] = n
	}
	return m
}()

// What a message is, after its version.
const (
	kindBatch   = 'B'
	kindRecords = 'R'
)

func appendOrigin(b []byte, o Origin) []byte {
	return binary.AppendUvarint(appendString(b, o.Node), o.Incarnation)
}

func (r *reader) origin() Origin { return Origin{r.string(), r.uint()} }

func (r *reader) open(kind byte) {
	if len(r.b) < 2 {
		r.fail(errMalformed)
		return
	}
	r.version(r.b[0])
	if r.err != nil {
		return
	}
	if r.b[1] != kind {
		r.fail(errMalformed)
		return
	}
	r.b = r.b[2:]
}

func (r *reader) version(v byte) {
	switch {
	case v < First:
		r.fail(errMalformed)
	case int(v) > Version:
		r.fail(fmt.Errorf("%w: version %d, and this program reads up to %d", ErrUnknown, v, Version))
	}
}

// done returns the error of reading a whole message.
func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errMalformed
	}
	if r.err != nil {
		return fmt.Errorf("partition: %w", r.err)
	}
	return nil
}

// AppendEvent appends an event as it is in a Batch.
func AppendEvent(b []byte, ev push.Event) []byte {
	return appendValue(appendTag(b, ev.Name()), ev)
}

func (r *reader) event() push.Event {
	name := r.name()
	if r.err != nil {
		return nil
	}
	t := events[name]
	if t == nil {
		r.fail(fmt.Errorf("%w: event %q", ErrUnknown, name))
		return nil
	}
	v := reflect.New(t)
	formOf(t).read(r, v.Elem())
	if r.err != nil {
		return nil
	}
	return v.Elem().Interface().(push.Event)
}

// AppendBatch appends a batch whose events were appended to raw before.
func AppendBatch(b []byte, version int, o Origin, number uint64, wanted []int, n int, raw []byte) []byte {
	b = appendOrigin(append(b, byte(version), kindBatch), o)
	b = binary.AppendUvarint(b, number)
	b = binary.AppendUvarint(b, uint64(len(wanted)))
	for _, i := range wanted {
		b = binary.AppendUvarint(b, uint64(i))
	}
	b = binary.AppendUvarint(b, uint64(n))
	return append(b, raw...)
}

// AppendBinary appends the batch.
func (m *Batch) AppendBinary(b []byte) ([]byte, error) {
	var raw []byte
	for _, ev := range m.Events {
		raw = AppendEvent(raw, ev)
	}
	return AppendBatch(b, First, m.Origin, m.Number, m.Wanted, len(m.Events), raw), nil
}

// ReadBatch reads a batch. The error wraps ErrUnknown if a later version wrote it.
func ReadBatch(data []byte) (*Batch, error) {
	r := &reader{b: data}
	r.open(kindBatch)
	m := &Batch{Origin: r.origin(), Number: r.uint()}
	for range r.count() {
		m.Wanted = append(m.Wanted, int(min(r.uint(), MaxEvents)))
	}
	n := r.count()
	if n > MaxEvents {
		r.fail(errMalformed)
	}
	for i := 0; i < n && r.err == nil; i++ {
		m.Events = append(m.Events, r.event())
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	return m, nil
}

// AppendRecords appends what an owner writes at once.
func AppendRecords(b []byte, version int, o Origin, rs []Record) []byte {
	b = appendOrigin(append(b, byte(version), kindRecords), o)
	b = binary.AppendUvarint(b, uint64(len(rs)))
	for _, rec := range rs {
		b = appendValue(appendTag(b, recordNames[reflect.TypeOf(rec)]), rec)
	}
	return b
}

// ReadRecords reads what an owner wrote.
func ReadRecords(data []byte) (Origin, []Record, error) {
	r := &reader{b: data}
	r.open(kindRecords)
	o := r.origin()
	var rs []Record
	for n := r.count(); n > 0 && r.err == nil; n-- {
		name := r.name()
		t := records[name]
		if r.err == nil && t == nil {
			r.fail(fmt.Errorf("%w: record %q", ErrUnknown, name))
		}
		if r.err != nil {
			break
		}
		v := reflect.New(t)
		formOf(t).read(r, v.Elem())
		if r.err == nil {
			rs = append(rs, v.Elem().Interface().(Record))
		}
	}
	if err := r.done(); err != nil {
		return Origin{}, nil, err
	}
	return o, rs, nil
}
