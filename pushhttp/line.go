package pushhttp

import (
	"time"

	"github.com/xmpp-push/push"
)

// line is one thing that happened. Which fields mean something depends on its kind.
type line struct {
	nanos   int64 // its time, since 1970: a time.Time would be one more pointer to follow for the garbage collector
	seq     uint64
	number  uint64 // of the event
	account *account
	event   push.Event // of an event line, without bodies and values of options; of one that is in stanza, only copies of the line have it
	key     push.Key
	answers *push.Answers // of an event: the host's
	text    string        // the reason's detail, the error condition, the operator
	extra   string        // the error type, the session of an advice, the action
	events  []uint64
	mask    uint64        // of a verdict: which stanzas of the event it notifies of
	took    time.Duration // until the reply; an advice's timeout
	retryAt int64         // like nanos; zero: not
	end     int64         // of a publish that was answered: when that was taken note of
	count   int32
	try     int32
	room    int32 // of how many lines it takes the room
	kind    kind
	rule    push.Rule
	reason  push.Reason
	class   push.Class
	outcome push.Outcome
	change  push.ChangeKind
	notify  bool
	done    bool // of a publish: it was answered
	// operator: of a change, an operator did it, who is in text.
	operator bool

	// stanza is that of an event about one, which is raised says. The line that takes this one's place uses it again.
	stanza *push.Stanza
	raises raises

	inAll, inAccount links
}

// raises is which event about one stanza an event line is: nearly all are of these.
type raises uint8

const (
	raisesOther raises = iota // it is in line.event
	raisesArchiveAdded
	raisesOffline
	raisesGroupchat
	raisesStanzaQueued // line.extra has the session
)

// raised returns the event of an event line that is not a copy.
func (l *line) raised() push.Event {
	switch l.raises {
	case raisesArchiveAdded:
		return push.ArchiveAdded{Account: l.account.name, Stanza: *l.stanza}
	case raisesOffline:
		return push.Offline{Account: l.account.name, Stanza: *l.stanza}
	case raisesGroupchat:
		return push.Groupchat{Account: l.account.name, Stanza: *l.stanza}
	case raisesStanzaQueued:
		return push.StanzaQueued{Session: push.SessionID{Account: l.account.name, ID: l.extra}, Stanza: *l.stanza}
	default:
		return l.event
	}
}

// copied returns a copy of the line, which nobody uses again.
func (l *line) copied() line {
	c := *l
	c.event, c.stanza, c.raises = l.raised(), nil, raisesOther
	return c
}

func (l *line) at() time.Time { return time.Unix(0, l.nanos).UTC() }

// ended is when the reply to a publish was taken note of.
func (l *line) ended() time.Time { return time.Unix(0, l.end).UTC() }

// retry is when a publish is tried again, or zero.
func (l *line) retry() time.Time {
	if l.retryAt == 0 {
		return time.Time{}
	}
	return time.Unix(0, l.retryAt).UTC()
}

type kind uint8

const (
	isEvent kind = iota
	isVerdict
	isPublish
	isReply // of a publish whose line is gone
	isChange
	isDrop
	isAdvice
	isAction
)

// links are the neighbours in a list, as indices plus one.
type links struct{ before, after int32 }

type list struct {
	first, last int32 // indices plus one
	n, room     int   // its lines, and the room that they take
}

// chunk is how many lines are made at a time.
const chunk = 1024

// line returns the line of an index plus one.
func (h *History) line(i int32) *line { return &h.chunks[(i-1)/chunk][(i-1)%chunk] }

// add returns a new line of an account, for which the oldest of the account's, or of all, make room.
func (h *History) add(a *account, k kind, at time.Time) *line {
	h.makeRoom(a, 1)
	i := int32(h.used + 1)
	if n := len(h.free); n > 0 {
		i, h.free = h.free[n-1], h.free[:n-1]
	} else if h.used++; h.used%chunk == 1 {
		h.chunks = append(h.chunks, make([]line, chunk))
	}
	h.seq++
	a.last = h.seq
	l := h.line(i)
	*l = line{kind: k, room: 1, nanos: at.UnixNano(), seq: h.seq, account: a, inAll: links{before: h.all.last}, inAccount: links{before: a.lines.last}}
	if last := h.all.append(i); last != 0 {
		h.line(last).inAll.after = i
	}
	if last := a.lines.append(i); last != 0 {
		h.line(last).inAccount.after = i
	}
	return l
}

// makeRoom takes out the oldest lines until there is the given room for one more of the account's, or nothing is left to take out.
func (h *History) makeRoom(a *account, room int) {
	for a.lines.n > 0 && a.lines.room+room > h.cfg.PerAccount {
		h.remove(a.lines.first, a)
	}
	for h.all.n > 0 && h.all.room+room > h.cfg.Lines {
		h.remove(h.all.first, a)
	}
}

// weigh has a line, which is the newest, take as much room as what it points to; what is usual is in its own.
func (h *History) weigh(a *account, l *line, bytes int) {
	more := bytes / lineBytes
	if more == 0 {
		return
	}
	for h.all.n > 1 && h.all.room+more > h.cfg.Lines {
		h.remove(h.all.first, a)
	}
	for a.lines.n > 1 && a.lines.room+more > h.cfg.PerAccount {
		h.remove(a.lines.first, a)
	}
	l.room += int32(more)
	h.all.room += more
	a.lines.room += more
}

// lineBytes is how much a line takes with what it points to, as a rule.
const lineBytes = 400

// append makes a line the last one, and returns the one before it.
func (l *list) append(i int32) (last int32) {
	if last = l.last; last == 0 {
		l.first = i
	}
	l.last = i
	l.n++
	l.room++
	return last
}

// remove takes a line out of its lists, and its account out of the map if that was the last one, unless a line is being added to it.
func (h *History) remove(i int32, adding *account) {
	l := h.line(i)
	l.account.evicted, h.evicted = true, true
	h.all.room -= int(l.room)
	l.account.lines.room -= int(l.room)
	h.unlink(&h.all, l.inAll, func(l *line) *links { return &l.inAll })
	h.unlink(&l.account.lines, l.inAccount, func(l *line) *links { return &l.inAccount })
	if l.account.lines.n == 0 && l.account != adding {
		delete(h.accounts, l.account.name)
	}
	if l.stanza != nil {
		h.spare = l.stanza
	}
	*l = line{}
	h.free = append(h.free, i)
}

func (h *History) unlink(from *list, at links, of func(*line) *links) {
	if at.before != 0 {
		of(h.line(at.before)).after = at.after
	} else {
		from.first = at.after
	}
	if at.after != 0 {
		of(h.line(at.after)).before = at.before
	} else {
		from.last = at.before
	}
	from.n--
}
