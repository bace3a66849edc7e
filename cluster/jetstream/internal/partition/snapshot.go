package partition

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// A snapshot is the State behind one message of the log and one record of the owner: a version, the two sequence numbers, and the accounts in the
// order of their names. It holds publish options, and texts if the policy includes them.

const kindSnapshot = 'S'

// stored is what is kept of an account beside its own snapshot.
type stored struct {
	Name          string
	Registrations []push.Registration
	// State is the library's snapshot; empty for an account that has nothing but registrations.
	State  []byte
	Homes  []home
	Recent []recent
	Lost   []lost
}

// header is what is kept of the partition.
type header struct {
	Now     time.Time
	Owner   Origin
	Origins []writerOf
	Ready   []Ref
	Flights []Ref
}

type writerOf struct {
	Origin Origin
	Number uint64
}

// pack returns an account that has nothing but registrations.
func (a *account) pack() []byte {
	return appendValue(nil, stored{Name: a.name, Registrations: a.Registrations()})
}

// unpack makes an account of what pack or snapshot wrote. What does not read back was never written by this program: the caller has read it whole once.
func (s *State) unpack(name string, packed []byte) *account {
	a, err := s.read(packed)
	if err != nil {
		panic(fmt.Sprintf("partition: account %q was kept and does not read back: %v", name, err))
	}
	return a
}

func (s *State) read(packed []byte) (*account, error) {
	var st stored
	r := &reader{b: packed}
	readValue(r, &st)
	if err := r.done(); err != nil {
		return nil, err
	}
	a := &account{name: st.Name, homes: st.Homes, recent: st.Recent, lost: st.Lost, registered: len(st.Registrations) > 0}
	if len(st.State) == 0 {
		a.Account = push.NewAccount(st.Name, s.policy, st.Registrations)
		return a, nil
	}
	acct, err := push.RestoreAccount(st.Name, s.policy, st.State)
	if err != nil {
		return nil, fmt.Errorf("account %q: %w", st.Name, err)
	}
	var eff push.Effects
	acct.Load(st.Registrations, s.now, &eff)
	a.Account = acct
	return a, nil
}

// snapshot returns the State as bytes, for sealSnapshot.
func (s *State) snapshot() []byte {
	h := header{Now: s.now, Owner: s.owner, Ready: sortedRefs(s.ready), Flights: sortedRefs(s.flights)}
	for name, w := range s.origins {
		h.Origins = append(h.Origins, writerOf{Origin{name, w.Incarnation}, w.Number})
	}
	slices.SortFunc(h.Origins, func(a, b writerOf) int { return compareStrings(a.Origin.Node, b.Origin.Node) })
	b := appendValue(nil, h)
	names := make([]string, 0, len(s.accounts)+len(s.cold))
	for name := range s.accounts {
		names = append(names, name)
	}
	for name := range s.cold {
		names = append(names, name)
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		packed, ok := s.cold[name]
		if !ok {
			a := s.accounts[name]
			st := stored{Name: name, Registrations: a.Registrations(), Homes: a.homes, Recent: a.recent, Lost: a.lost}
			var err error
			if st.State, err = a.AppendBinary(nil); err != nil {
				panic(fmt.Sprintf("partition: account %q: %v", name, err))
			}
			packed = appendValue(nil, st)
		}
		b = append(binary.AppendUvarint(b, uint64(len(packed))), packed...)
	}
	return b
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// sealSnapshot says which messages the snapshot has in it: the batches up to seq, and the records up to own.
func sealSnapshot(version int, state []byte, seq, own uint64) []byte {
	b := make([]byte, 0, len(state)+24)
	b = binary.AppendUvarint(append(b, byte(version), kindSnapshot), seq)
	b = binary.AppendUvarint(b, own)
	return append(b, state...)
}

// restore reads a snapshot into an empty State. What is not understood is refused whole.
func (s *State) restore(data []byte) (seq, own uint64, err error) {
	r := &reader{b: data}
	r.open(kindSnapshot)
	seq, own = r.uint(), r.uint()
	var h header
	readValue(r, &h)
	n := r.count()
	type read struct {
		name   string
		packed []byte
		a      *account
	}
	list := make([]read, 0, n)
	for i := 0; i < n && r.err == nil; i++ {
		packed := r.bytes()
		if r.err != nil {
			break
		}
		a, err := s.read(packed)
		if err != nil {
			return 0, 0, err
		}
		list = append(list, read{a.name, packed, a})
	}
	if err := r.done(); err != nil {
		return 0, 0, err
	}
	s.Seq, s.now, s.owner = seq, h.Now, h.Owner
	for _, w := range h.Origins {
		s.origins[w.Origin.Node] = &writer{w.Origin.Incarnation, w.Number}
	}
	for _, ref := range h.Ready {
		s.ready[ref] = true
	}
	for _, ref := range h.Flights {
		s.flights[ref] = true
	}
	var out Out
	for _, e := range list {
		if e.a.idle(s.now) && e.a.registered {
			s.cold[e.name] = e.packed
			continue
		}
		e.a.rest.a = e.a
		s.accounts[e.name] = e.a
		s.settle(e.a, &out)
	}
	return seq, own, nil
}
