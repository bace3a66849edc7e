package partition

import (
	"cmp"
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// What a new owner does with what it finds in the log.

// replayed does what the log says from the snapshot to this owner's Claim.
func (o *Owner) replayed(now time.Time) {
	type entry struct {
		after uint64
		order int // records come after the batch that they name
		seq   uint64
		at    time.Time
		batch *Batch
		by    Origin
		rec   Record
	}
	var list []entry
	for i, m := range o.replay {
		if !m.Records {
			if m.Seq <= o.snapSeq {
				continue
			}
			b, err := ReadBatch(m.Data)
			if err != nil {
				o.stuck(now, err)
				return
			}
			list = append(list, entry{after: m.Seq, at: m.Time, batch: b, seq: m.Seq})
			continue
		}
		if m.Seq <= o.snapOwn {
			continue
		}
		by, rs, err := ReadRecords(m.Data)
		if err != nil {
			o.stuck(now, err)
			return
		}
		for _, r := range rs {
			e := entry{after: m.Seq, order: i + 1, seq: m.Seq, at: m.Time, by: by, rec: r}
			if w, ok := r.(interface{ when() When }); ok {
				e.after = w.when().After
			}
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.after, b.after), cmp.Compare(a.order, b.order)) })
	last := o.replay[len(o.replay)-1]
	shown := o.wasShown(now)
	o.replay = nil
	var advised, moved []push.SessionID // by what was not shown
	for _, e := range list {
		if e.batch == nil {
			o.state.Record(e.seq, e.by, e.rec, &o.out)
			continue
		}
		o.shown = max(o.shown, e.seq)
		decided, advice, move := len(o.out.Decided), len(o.out.Advice), len(o.out.Moved)
		o.state.Batch(e.seq, e.at, e.batch, &o.out)
		if shown(e.seq, e.at, e.batch.Origin) {
			for i := range o.out.Decided[decided:] {
				o.out.Decided[decided+i].Shown = true
			}
			continue
		}
		for _, a := range o.out.Advice[advice:] {
			advised = append(advised, a.Session)
		}
		for _, m := range o.out.Moved[move:] {
			moved = append(moved, m.Session)
		}
	}
	o.out.Advice = lastOf(o.out.Advice, advised, func(a Advice) push.SessionID { return a.Session })
	o.out.Moved = slices.DeleteFunc(lastOf(o.out.Moved, moved, func(m Moved) push.SessionID { return m.Session }), func(m Moved) bool {
		a := o.state.accounts[m.Session.Account]
		if a == nil {
			return false
		}
		h := a.home(m.Session.ID)
		return h != nil && h.Origin.Node == m.Node // it has come back
	})
	o.Resent += o.out.Resent
	o.logTime, o.receivedAt = last.Time, now
	if n := o.state.Now(); o.logTime.Before(n) {
		o.logTime = n
	}
	o.phase = PhaseOwning
	o.Takeovers++
	o.TakenIn = now.Sub(o.wantAt)
	o.savedAt, o.since = now, len(list)
	o.homesAt = now
	o.Err = nil
	o.out.Ready = nil
	o.show(true)
	o.world.Show(&Out{Ready: o.state.Waiting()}, false)
	o.Tick(now)
	if !o.want {
		o.phase = PhaseDraining
		o.drain()
	}
}

// lastOf returns the last of the elements about each of some sessions, in order.
func lastOf[E any](list []E, of []push.SessionID, session func(E) push.SessionID) []E {
	var last []E
	for i := len(list) - 1; i >= 0; i-- {
		id := session(list[i])
		if slices.Contains(of, id) && !slices.ContainsFunc(last, func(e E) bool { return session(e) == id }) {
			last = append(last, list[i])
		}
	}
	slices.Reverse(last)
	return last
}

// wasShown returns what tells whether a batch was shown by a former owner: as far as that said when it released the partition; or until it was heard of last, for
// nobody knows how far it came.
func (o *Owner) wasShown(now time.Time) func(seq uint64, at time.Time, by Origin) bool {
	mine, former := o.shown, o.former
	if former == (Origin{}) || former == o.me || o.released != nil {
		to := mine
		if o.released != nil {
			to = max(to, o.released.After)
		}
		return func(seq uint64, _ time.Time, _ Origin) bool { return seq <= to }
	}
	silent := o.cfg.Heard(former.Node)
	if silent < 0 {
		silent = now.Sub(o.wantAt)
	}
	until := o.replay[len(o.replay)-1].Time.Add(-silent)
	return func(seq uint64, at time.Time, by Origin) bool {
		return seq <= mine || at.Before(until) && !(by.Node == former.Node && by.Incarnation > former.Incarnation)
	}
}
