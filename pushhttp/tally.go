package pushhttp

import (
	"slices"
	"time"

	"github.com/xmpp-push/push"
)

// tally is the sums that the overview shows. It is used under the lock of its History.
type tally struct {
	since   time.Time
	slots   [slotCount]slot
	reasons [rules][reasons]uint64
	total   slot
	// services are those that were published to lately.
	services map[string]*service
	problems []Problem // oldest first
}

// The charts go back slotCount times slotTime.
const (
	slotTime  = 5 * time.Second
	slotCount = 180
)

// slot is what happened in one slotTime.
type slot struct {
	start     int64 // in slotTimes since 1970
	events    uint32
	yes, no   uint32
	classes   [push.ClassUrgent + 1]uint32 // publishes
	outcomes  [push.OutcomeDropped + 1]uint32
	disabled  uint32
	discarded uint32 // notifications that were dropped
}

// Rules and reasons are counted up to these numbers; there are fewer. A reason says by itself whether it notifies.
const rules, reasons = 32, 128

// service is what is known of a push service besides what the Engine says.
type service struct {
	used     time.Time
	outcomes [push.OutcomeDropped + 1]uint64
	now, old latencies
	turn     time.Time // when now was begun
	lastText string    // the last error
	lastAt   time.Time
}

// latencies counts replies by how long they took: bucket i is up to 2^i quarters of a millisecond.
type latencies [24]uint32

// maxServices bounds how many services are known: their names come from clients, who could make up any number.
const maxServices = 256

// Problem is something that an operator may want to know.
type Problem struct {
	At      time.Time
	Account string
	push.Key
	What, Why string
	// Times is how often it came in a row, At being the last.
	Times int
}

const maxProblems = 64

func (t *tally) slot(at time.Time) *slot {
	if t.since.IsZero() {
		t.since = at
	}
	n := at.UnixNano() / int64(slotTime)
	s := &t.slots[n%slotCount]
	if s.start != n {
		*s = slot{start: n}
	}
	return s
}

// both counts in the slot of a time and in the total.
func (t *tally) both(at time.Time, count func(*slot)) {
	count(t.slot(at))
	count(&t.total)
}

func (t *tally) decided(at time.Time, d *push.Decision) {
	s := t.slot(at)
	s.events++
	t.total.events++
	for i := range d.Verdicts {
		v := &d.Verdicts[i]
		if v.Notify {
			s.yes++
			t.total.yes++
		} else {
			s.no++
			t.total.no++
		}
		t.reasons[v.Rule%rules][v.Reason%reasons]++
	}
	if d.Reason != push.ReasonNone {
		t.reasons[push.RuleNone][d.Reason%reasons]++
	}
}

func (t *tally) sent(at time.Time, n *push.Notification) {
	t.both(at, func(s *slot) { s.classes[min(n.Class, push.ClassUrgent)]++ })
}

func (t *tally) replied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	o := min(res.Outcome, push.OutcomeDropped)
	t.both(at, func(s *slot) { s.outcomes[o]++ })
	v := t.service(n.Service, at)
	v.outcomes[o]++
	if !reply.Missing && reply.Vetoed == "" {
		if at.Sub(v.turn) > 5*time.Minute {
			v.old, v.now, v.turn = v.now, latencies{}, at
		}
		v.now[bucket(took)]++
	}
	if o == push.OutcomeAccepted || o == push.OutcomeDropped {
		return
	}
	v.lastText, v.lastAt = errorText(reply), at
	t.problem(Problem{At: at, Account: n.Account, Key: n.Key, What: "publish " + outcomeText(o), Why: v.lastText})
}

func errorText(reply push.Reply) string {
	if reply.Missing {
		return "no answer"
	}
	return cut(reply.Type) + "/" + cut(reply.Condition)
}

func (t *tally) changed(at time.Time, account string, c *push.Change) {
	if c.Kind == push.ChangeDisabled {
		t.both(at, func(s *slot) { s.disabled++ })
		t.problem(Problem{At: at, Account: account, Key: c.Key, What: "registration disabled", Why: cut(c.Detail)})
	}
	if c.Kind == push.ChangeRemoved && c.Reason == push.ReasonLimit {
		t.problem(Problem{At: at, Account: account, Key: c.Key, What: "registration removed", Why: c.Reason.Sentence()})
	}
}

func (t *tally) dropped(at time.Time, account string, d *push.Drop) {
	t.both(at, func(s *slot) { s.discarded++ })
	if d.Reason == push.ReasonTooOld || d.Reason == push.ReasonDisabled {
		t.problem(Problem{At: at, Account: account, Key: d.Key, What: "notification dropped", Why: d.Reason.Sentence()})
	}
}

// problem notes a problem. Those that are alike are counted: a dead service must not hide everything else.
func (t *tally) problem(p Problem) {
	p.Times = 1
	for i := range t.problems {
		o := &t.problems[i]
		if o.Service == p.Service && o.What == p.What && o.Why == p.Why && p.At.Sub(o.At) < 10*time.Minute {
			p.Times += o.Times
			t.problems = slices.Delete(t.problems, i, i+1)
			break
		}
	}
	if len(t.problems) == maxProblems {
		t.problems = slices.Delete(t.problems, 0, 1)
	}
	t.problems = append(t.problems, p)
}

func (t *tally) service(name string, at time.Time) *service {
	v := t.services[name]
	if v == nil {
		if t.services == nil {
			t.services = make(map[string]*service)
		}
		if len(t.services) >= maxServices {
			oldest := ""
			for n, o := range t.services {
				if oldest == "" || o.used.Before(t.services[oldest].used) {
					oldest = n
				}
			}
			delete(t.services, oldest)
		}
		v = &service{turn: at}
		t.services[name] = v
	}
	v.used = at
	return v
}

func bucket(d time.Duration) int {
	i := 0
	for limit := 250 * time.Microsecond; d > limit && i < len(latencies{})-1; limit *= 2 {
		i++
	}
	return i
}

// quantile returns about the time that a part q of the replies took at most; zero if there are none.
func (v *service) quantile(q float64) time.Duration {
	var all uint64
	for i := range v.now {
		all += uint64(v.now[i]) + uint64(v.old[i])
	}
	if all == 0 {
		return 0
	}
	left := uint64(float64(all)*q) + 1
	limit := 250 * time.Microsecond
	for i := range v.now {
		n := uint64(v.now[i]) + uint64(v.old[i])
		if left <= n {
			return limit
		}
		left -= n
		limit *= 2
	}
	return limit
}

// recent returns the slots of the charts, oldest first.
func (t *tally) recent(now time.Time) []slot {
	last := now.UnixNano() / int64(slotTime)
	out := make([]slot, slotCount)
	for i := range out {
		n := last - slotCount + 1 + int64(i)
		out[i].start = n
		if s := t.slots[n%slotCount]; s.start == n {
			out[i] = s
		}
	}
	return out
}
