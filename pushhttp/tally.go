package pushhttp

import (
	"math"
	"slices"
	"strings"
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

// service is what is known of a push service besides what the Engine says: the last hour in minutes.
type service struct {
	used    int64 // the last publish or reply, in nanoseconds
	answers int64 // the last reply of its own
	minutes [minuteCount]minute
	errorAt int64
	error   string // the last one
	account string // whose
}

// minute is what happened in one.
type minute struct {
	start      int64 // in minutes since 1970
	outcomes   [push.OutcomeDropped + 1]uint32
	took       latencies
	conditions [maxConditions]condition // the last takes what does not fit
}

type condition struct {
	text  string
	times uint32
}

const (
	minuteCount = 60
	// window is how many of them the tables sum up: all figures of a table are of the same time.
	window        = 15
	maxConditions = 6
)

// latencies counts replies by how long they took: bucket i is up to 2^i quarters of a millisecond.
type latencies [24]uint32

// maxServices bounds how many services are known: their names come from clients, who could make up any number.
const maxServices = 256

func (v *service) minute(at time.Time) *minute {
	n := floor(at.Unix(), 60)
	m := &v.minutes[mod(n, minuteCount)]
	if m.start != n {
		*m = minute{start: n}
	}
	return m
}

// sum adds up the last n minutes.
func (v *service) sum(now time.Time, n int) (s minute) {
	for i := range n {
		m := v.at(now, i)
		if m == nil {
			continue
		}
		for o, c := range m.outcomes {
			s.outcomes[o] += c
		}
		for j, c := range m.took {
			s.took[j] += c
		}
		for _, c := range m.conditions {
			s.condition(c.text, c.times)
		}
	}
	return s
}

// at returns the minute that was ago minutes ago, or nil if nothing happened in it.
func (v *service) at(now time.Time, ago int) *minute {
	n := floor(now.Unix(), 60) - int64(ago)
	if m := &v.minutes[mod(n, minuteCount)]; m.start == n {
		return m
	}
	return nil
}

func (m *minute) condition(text string, times uint32) {
	if times == 0 {
		return
	}
	for i := range m.conditions {
		c := &m.conditions[i]
		if c.text == text || c.text == "" {
			c.text, c.times = text, c.times+times
			return
		}
	}
	last := &m.conditions[maxConditions-1]
	last.text, last.times = "others", last.times+times
}

func (m *minute) failed() (n uint32) {
	for o, c := range m.outcomes {
		if push.Outcome(o) != push.OutcomeAccepted && push.Outcome(o) != push.OutcomeDropped {
			n += c
		}
	}
	return n
}

// Problem is something that an operator may want to know.
type Problem struct {
	At       time.Time `json:"at"`
	Account  string    `json:"-"`
	push.Key `json:"-"`
	What     string `json:"what"`
	Why      string `json:"why"`
	// Times is how often it came in a row, At being the last.
	Times int `json:"times"`
}

const maxProblems = 64

func (t *tally) slot(at time.Time) *slot {
	if t.since.IsZero() {
		t.since = at
	}
	n := floor(at.UnixNano(), int64(slotTime))
	s := &t.slots[mod(n, slotCount)]
	if s.start != n {
		*s = slot{start: n}
	}
	return s
}

// floor divides so that times before 1970, as recordings may have them, are in their order too; mod is what is left.
func floor(n, by int64) int64 {
	if n < 0 {
		return (n - by + 1) / by
	}
	return n / by
}

func mod(n, by int64) int64 { return n - floor(n, by)*by }

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

func (t *tally) replied(at time.Time, a *account, n *push.Notification, reply push.Reply, res push.Result, took time.Duration) {
	o := min(res.Outcome, push.OutcomeDropped)
	t.both(at, func(s *slot) { s.outcomes[o]++ })
	v := t.service(n.Service, at)
	m := v.minute(at)
	m.outcomes[o]++
	if !reply.Missing && reply.Vetoed == "" {
		m.took[bucket(took)]++
		v.answers = at.UnixNano()
	}
	if o == push.OutcomeAccepted || o == push.OutcomeDropped {
		return
	}
	v.error, v.errorAt, v.account = errorText(reply), at.UnixNano(), n.Account
	m.condition(v.error, 1)
	t.problem(a, Problem{At: at, Account: n.Account, Key: n.Key, What: "notification " + outcomeText(o), Why: v.error})
}

func errorText(reply push.Reply) string {
	if reply.Missing {
		return noAnswer
	}
	return cut(reply.Type) + "/" + cut(reply.Condition)
}

func (t *tally) changed(at time.Time, a *account, c *push.Change) {
	if c.Kind == push.ChangeDisabled {
		t.both(at, func(s *slot) { s.disabled++ })
		t.problem(a, Problem{At: at, Account: a.name, Key: c.Key, What: "device given up", Why: cut(c.Detail)})
	}
	if c.Kind == push.ChangeRemoved && c.Reason == push.ReasonLimit {
		t.problem(a, Problem{At: at, Account: a.name, Key: c.Key, What: "device dropped", Why: c.Reason.Sentence()})
	}
}

func (t *tally) dropped(at time.Time, a *account, d *push.Drop) {
	t.both(at, func(s *slot) { s.discarded++ })
	if d.Reason == push.ReasonTooOld || d.Reason == push.ReasonDisabled {
		t.problem(a, Problem{At: at, Account: a.name, Key: d.Key, What: "notification given up", Why: d.Reason.Sentence()})
	}
}

// problem notes a problem. Those that are alike are counted: a dead service must not hide everything else.
func (t *tally) problem(a *account, p Problem) {
	a.trouble, a.troubleText = p.At.UnixNano(), p.What
	if p.Why != "" {
		a.troubleText += ": " + p.Why
	}
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
				if oldest == "" || o.used < t.services[oldest].used {
					oldest = n
				}
			}
			delete(t.services, oldest)
		}
		v = &service{}
		t.services[name] = v
	}
	v.used = at.UnixNano()
	return v
}

func bucket(d time.Duration) int {
	i := 0
	for limit := 250 * time.Microsecond; d > limit && i < len(latencies{})-1; limit *= 2 {
		i++
	}
	return i
}

// quantile returns between which times the reply was that a part q of the replies did not take longer than; false if there are none.
func (l *latencies) quantile(q float64) (low, high time.Duration, ok bool) {
	var all uint64
	for _, n := range l {
		all += uint64(n)
	}
	if all == 0 {
		return 0, 0, false
	}
	left := uint64(math.Ceil(float64(all) * q))
	limit := 250 * time.Microsecond
	for i, n := range l {
		if left <= uint64(n) || i == len(l)-1 {
			if i == len(l)-1 {
				return low, 0, true
			}
			return low, limit, true
		}
		left -= uint64(n)
		low, limit = limit, limit*2
	}
	return low, 0, true
}

// between writes what quantile returns.
func between(low, high time.Duration, ok bool) string {
	switch {
	case !ok:
		return "–"
	case high != 0 && high <= time.Millisecond:
		return "under 1 ms"
	case high == 0:
		return "over " + span(low)
	}
	l, h := span(low), spanUp(high)
	if lu, hu := strings.Fields(l), strings.Fields(h); len(lu) == 2 && len(hu) == 2 && lu[1] == hu[1] {
		l = lu[0]
	}
	return l + "–" + h
}

// spanUp is span for an upper bound.
func spanUp(d time.Duration) string {
	if d < time.Millisecond {
		return "1 ms"
	}
	return span(d)
}

// recent returns the slots of the charts, oldest first.
func (t *tally) recent(now time.Time) []slot {
	last := floor(now.UnixNano(), int64(slotTime))
	out := make([]slot, slotCount)
	for i := range out {
		n := last - slotCount + 1 + int64(i)
		out[i].start = n
		if s := t.slots[mod(n, slotCount)]; s.start == n {
			out[i] = s
		}
	}
	return out
}
