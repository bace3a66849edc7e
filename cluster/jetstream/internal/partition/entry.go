package partition

import (
	"slices"

	"github.com/xmpp-push/push"
)

// maxBatchBytes bounds a batch. One event may be larger.
const maxBatchBytes = 256 << 10

// Entry is what a node has to append to one partition. One batch is on its way at a time, so that the node's events keep their order; what comes meanwhile goes
// with the next one. Not safe for simultaneous use.
type Entry struct {
	me      Origin
	number  uint64
	waiting []*Entered
	flight  []*Entered
	data    []byte
}

// Entered is an event that waits to be in the log.
type Entered struct {
	raw []byte
	// Wanted: somebody waits for its Decision.
	Wanted bool
	// Origin, Batch and Index are its place, once it is on its way.
	Origin Origin
	Batch  uint64
	Index  int
	// Tag is the caller's.
	Tag any
}

// NewEntry returns an empty Entry.
func NewEntry(me Origin) *Entry { return &Entry{me: me} }

// Begin begins another life of the node, when nothing is on its way. What waits belongs to it, and comes behind some events that it begins with, for which nobody waits.
func (e *Entry) Begin(me Origin, tag any, first []push.SessionRestored) {
	e.me, e.number = me, 0
	list := make([]*Entered, 0, len(first)+len(e.waiting))
	for _, ev := range first {
		list = append(list, &Entered{raw: AppendEvent(nil, ev), Tag: tag})
	}
	e.waiting = append(list, e.waiting...)
}

// Add puts an event behind the others.
func (e *Entry) Add(ev push.Event, wanted bool, tag any) *Entered {
	in := &Entered{raw: AppendEvent(nil, ev), Wanted: wanted, Tag: tag}
	e.waiting = append(e.waiting, in)
	return in
}

// Idle tells whether nothing waits or is on its way.
func (e *Entry) Idle() bool { return len(e.waiting) == 0 && e.flight == nil }

// Withdraw takes an event back. It returns false if that is on its way, and may be in the log.
func (e *Entry) Withdraw(in *Entered) bool {
	i := slices.Index(e.waiting, in)
	if i >= 0 {
		e.waiting = slices.Delete(e.waiting, i, i+1)
	}
	return i >= 0
}

// Next returns the next batch to append, in a version, or nil if one is on its way or nothing waits.
func (e *Entry) Next(version int) []byte {
	if e.flight != nil || len(e.waiting) == 0 {
		return nil
	}
	n, size := 0, 0
	for n < len(e.waiting) && n < MaxEvents && (n == 0 || size+len(e.waiting[n].raw) <= maxBatchBytes) {
		size += len(e.waiting[n].raw)
		n++
	}
	e.number++
	e.flight = slices.Clone(e.waiting[:n])
	e.waiting = slices.Delete(e.waiting, 0, n)
	var wanted []int
	raw := make([]byte, 0, size)
	for i, in := range e.flight {
		in.Origin, in.Batch, in.Index = e.me, e.number, i
		if in.Wanted {
			wanted = append(wanted, i)
		}
		raw = append(raw, in.raw...)
	}
	e.data = AppendBatch(make([]byte, 0, size+len(e.me.Node)+24), version, e.me, e.number, wanted, n, raw)
	return e.data
}

// Again returns the batch that is on its way, to be appended once more; nil if there is none.
func (e *Entry) Again() []byte {
	if e.flight == nil {
		return nil
	}
	return e.data
}

// Flight returns what is on its way.
func (e *Entry) Flight() []*Entered { return e.flight }

// Done ends the way of the batch: it is in the log, or nobody waits for it any more.
func (e *Entry) Done() []*Entered {
	f := e.flight
	e.flight, e.data = nil, nil
	return f
}

// Len is how many events wait or are on their way.
func (e *Entry) Len() int { return len(e.waiting) + len(e.flight) }

// Waiting returns what is not on its way yet.
func (e *Entry) Waiting() []*Entered { return slices.Clone(e.waiting) }
