package partition

import (
	"cmp"
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// The log of the simulation, and the World of one owner, which reads and writes it.

func (s *simulation) append(p int, records bool, data []byte) uint64 {
	s.seq++
	m := Message{s.seq, s.now.Add(s.skew), records, data}
	s.log[p] = append(s.log[p], m)
	if records {
		by, rs, _ := ReadRecords(data)
		if _, ok := rs[0].(Claim); ok {
			s.claims[p] = append(s.claims[p], s.seq)
			s.owner[p] = by
		} else if by != s.owner[p] {
			s.fail("C5: partition %d is %v's, and %v changes what is decided there", p, s.owner[p], by)
		}
	}
	if !records {
		b, err := ReadBatch(data)
		if err != nil {
			panic(err)
		}
		for i, ev := range b.Events {
			switch ev := ev.(type) {
			case push.ArchiveAdded:
				s.stanzas[s.seq*MaxEvents+uint64(i)] = ev.Stanza.ID
			case push.PushDisable: // a registration that is enabled after it is another one, which nobody was told through
				s.disabled[Ref{ev.Session.Account, ev.Key}] = s.now
			case push.StanzaQueued:
				s.stanzas[s.seq*MaxEvents+uint64(i)] = ev.Stanza.ID
			}
		}
	}
	for _, n := range s.nodes {
		if n.up {
			n.worlds[p].pump()
		}
	}
	return s.seq
}

// tail returns the newest record, or that before it as a leader has it that is none any more.
func (s *simulation) tail(p int, stale bool) (uint64, []byte) {
	for _, m := range slices.Backward(s.log[p]) {
		if m.Records && !stale {
			return m.Seq, m.Data
		}
		stale = stale && !m.Records
	}
	return 0, nil
}

type simWorld struct {
	n       *simNode
	p       int
	o       *Owner
	reading bool
	next    uint64
	pumping bool
	reads   int
}

func (w *simWorld) Tail() {
	var seq uint64
	var data []byte
	answered := false
	w.n.request(func() bool {
		s := w.n.s
		seq, data = s.tail(w.p, s.cfg.faults && s.busy && s.r.IntN(50) == 0)
		return true
	}, func(bool) {
		if !answered {
			answered = true
			w.o.Tailed(w.n.clock(), seq, data, nil)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Tailed(w.n.clock(), 0, nil, ErrDoubt)
		}
	})
}

func (w *simWorld) Append(records []byte, prev uint64) {
	s := w.n.s
	answered := false
	var seq uint64
	if s.cfg.sabotage == "C3" { // the ends are not written
		o, rs, _ := ReadRecords(records)
		rs = slices.DeleteFunc(rs, func(r Record) bool { _, end := r.(End); return end })
		if len(rs) == 0 {
			rs = []Record{Tick{}}
		}
		records = AppendRecords(nil, First, o, rs)
	}
	w.n.request(func() bool {
		last, _ := s.tail(w.p, false)
		if last != prev && s.cfg.sabotage != "C5" {
			return false
		}
		seq = s.append(w.p, true, records)
		return true
	}, func(ok bool) {
		if answered {
			return
		}
		answered = true
		if ok {
			w.o.Appended(w.n.clock(), seq, nil)
		} else {
			w.o.Appended(w.n.clock(), 0, ErrFenced)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Appended(w.n.clock(), 0, ErrDoubt)
		}
	})
}

func (w *simWorld) Load(epoch uint64) {
	s := w.n.s
	answered := false
	var data []byte
	w.n.request(func() bool {
		sn := &s.snaps[w.p]
		if sn.epoch > epoch {
			return false
		}
		sn.epoch, data = epoch, sn.data
		return true
	}, func(ok bool) {
		if answered {
			return
		}
		answered = true
		if ok {
			w.o.Loaded(w.n.clock(), data, nil)
		} else {
			w.o.Loaded(w.n.clock(), nil, ErrFenced)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Loaded(w.n.clock(), nil, ErrDoubt)
		}
	})
}

func (w *simWorld) Save(snapshot []byte, keep uint64) {
	s := w.n.s
	epoch := w.o.epoch
	answered := false
	w.n.request(func() bool {
		sn := &s.snaps[w.p]
		if sn.epoch != epoch {
			return false
		}
		sn.data = snapshot
		s.forgot[w.p] = max(s.forgot[w.p], keep)
		return true
	}, func(ok bool) {
		if answered {
			return
		}
		answered = true
		if ok {
			w.o.Saved(w.n.clock(), nil)
		} else {
			w.o.Saved(w.n.clock(), ErrFenced)
		}
	})
	w.n.in(time.Second, func() {
		if !answered {
			answered = true
			w.o.Saved(w.n.clock(), ErrDoubt)
		}
	})
}

func (w *simWorld) Read(from uint64) {
	w.reads++
	w.reading, w.next = true, from
	w.pumping = false
	w.pump()
}

func (w *simWorld) Stop() { w.reading = false; w.reads++ }

// pump delivers what the log has, after a while.
func (w *simWorld) pump() {
	if !w.reading || w.pumping {
		return
	}
	w.pumping = true
	reads := w.reads
	w.n.in(w.n.s.delay(), func() {
		if w.reads != reads {
			return
		}
		w.pumping = false
		s := w.n.s
		if w.n.cut || s.now.Before(s.outage) {
			w.pumping = true
			w.n.in(100*time.Millisecond, func() {
				if w.reads == reads {
					w.pumping = false
					w.pump()
				}
			})
			return
		}
		list := s.log[w.p]
		i, _ := slices.BinarySearchFunc(list, w.next, func(m Message, seq uint64) int { return cmp.Compare(m.Seq, seq) })
		for ; i < len(list) && w.reading && w.reads == reads; i++ {
			if c := s.claims[w.p]; list[i].Seq < s.forgot[w.p] && w.o.epoch < c[len(c)-1] {
				continue // a former owner may miss something: whatever it makes of it, nobody takes it from it
			}
			if list[i].Seq < s.forgot[w.p] {
				s.fail("%s reads partition %d from %d, and the log begins at %d", w.n.name, w.p, w.next, s.forgot[w.p])
				return
			}
			w.next = list[i].Seq + 1
			w.o.Message(w.n.clock(), list[i])
		}
	})
}

func (w *simWorld) Publish(ref Ref, n push.Notification) {
	s := w.n.s
	s.Stats.Published++
	answered := false
	run := w.n.run
	epoch := w.o.epoch
	s.checkBegun(w.p, ref, epoch)
	if !w.n.cut || true { // push services are on another network
		s.after(s.delay(), func() {
			told := s.service[ref]
			if told == nil {
				told = make(map[string]time.Time)
				s.service[ref] = told
			}
			twice := false
			for _, num := range n.Events {
				id := s.stanzas[num]
				if before, ok := told[id]; ok && s.disabled[ref].Before(before.Add(-2*time.Second)) {
					twice = true
					if s.settled[ref][id] {
						s.fail("C3: %v is told of %s again, though the first time was answered in peace", ref, id)
					}
				}
				told[id] = s.now
			}
			if twice {
				s.Stats.Twice++
				s.note("twice: %v by %s", ref, w.n.name)
			}
			s.after(time.Duration(1+s.r.IntN(100))*time.Millisecond, func() {
				w.n.do(run, func() {
					if !answered {
						answered = true
						w.o.Replied(w.n.clock(), ref, push.Reply{})
						at := s.now
						w.n.in(peace, func() {
							if s.now.Sub(at) == peace && w.n.troubled.Before(at.Add(-peace)) && s.troubled.Before(at.Add(-peace)) && w.o.epoch == epoch {
								for _, num := range n.Events {
									s.settle(ref, s.stanzas[num])
								}
							}
						})
					}
				})
			})
		})
	}
}

// peace is how long nothing bad must have happened around a reply for its End to be in the log for certain.
const peace = 8 * time.Second

func (s *simulation) settle(ref Ref, id string) {
	if s.settled[ref] == nil {
		s.settled[ref] = make(map[string]bool)
	}
	s.settled[ref][id] = true
}

// checkBegun: what goes out was begun in the log by this owner, while it was the owner (C5). An owner that was paused just then sends it when it wakes up:
// that was in flight.
func (s *simulation) checkBegun(p int, ref Ref, epoch uint64) {
	for _, m := range slices.Backward(s.log[p]) {
		if m.Seq < epoch {
			break
		}
		if !m.Records || s.claimBefore(p, m.Seq) != epoch {
			continue
		}
		_, rs, _ := ReadRecords(m.Data)
		for _, r := range rs {
			if b, ok := r.(Begin); ok && b.Account == ref.Account && b.Key == ref.Key {
				return
			}
		}
	}
	s.fail("C5: %v is published by the owner of %d, and the log does not say that it was begun then", ref, epoch)
}

func (s *simulation) claimBefore(p int, seq uint64) uint64 {
	for _, c := range slices.Backward(s.claims[p]) {
		if c <= seq {
			return c
		}
	}
	return 0
}

func (w *simWorld) Show(out *Out, replayed bool) {
	s := w.n.s
	for _, ref := range out.Ready {
		w.n.in(0, func() { w.o.Begin(w.n.clock(), ref) })
	}
	for _, a := range out.Changed {
		if s.knownBy[a] > w.o.epoch {
			continue // a later owner has said something
		}
		s.rev++
		s.note("%s says of %s: %v, as %d", w.n.name, a, len(w.o.state.Registrations(a)), s.rev)
		has, rev := len(w.o.state.Registrations(a)) > 0, s.rev
		s.known[a], s.knownBy[a], s.knownRev[a] = has, w.o.epoch, rev
		w.n.local.Register(Hash(a), has, rev)
		if !has {
			s.sure[a] = false
		}
		waiting := 1
		heard := func() {
			if waiting--; waiting == 0 && s.knownRev[a] == rev {
				s.sure[a] = has
			}
		}
		for _, o := range s.nodes {
			if o != w.n && o.up {
				waiting++
				once := false
				w.tell(o, a, has, rev, s.now.Add(simLease*3/2), func() {
					if !once {
						once = true
						heard()
					}
				})
			}
		}
		heard()
	}
	if replayed {
		s.Stats.Resent += out.Resent
		s.Stats.MaxTakeover = max(s.Stats.MaxTakeover, w.n.clock().Sub(w.o.wantAt))
	}
	for i := range out.Decided {
		if d := &out.Decided[i]; d.Number > 0 && (!replayed || !d.Shown) {
			s.shown[d.Number] = true
		}
	}
	for _, ad := range out.Advice {
		for _, o := range s.nodes {
			if o.name == ad.Node && o.up {
				o.in(s.delay(), func() { o.local.Advised(ad.Advice) })
			}
		}
	}
}

// answer waits with an enable that was accepted: it is answered when all nodes know of it.
func (s *simulation) answer(p *phone) {
	for _, n := range s.nodes {
		if n.up && !n.cut && !n.paused && !n.local.Registered(p.account) {
			s.after(time.Millisecond, func() { s.answer(p) })
			return
		}
	}
	p.enabled = true
}
