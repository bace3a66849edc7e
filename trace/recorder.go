package trace

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// RecorderConfig is what a Recorder needs: Dir or Create.
type RecorderConfig struct {
	// Dir is the directory of the files, which is made if need be. They are named push-TIME-NUMBER.jsonl, and only their owner may read them.
	// Nothing else in it should be named like that, since old ones are removed.
	Dir string
	// Create makes a file, if Dir is not enough. Then nothing is ever removed. If the file can be truncated (Truncate(int64) error), a line
	// that could be written only in part is taken back; if it can be synced (Sync() error), Sync is heeded.
	Create func(name string) (io.WriteCloser, error)
	// MaxBytes is the size at which the next file is begun. Default 64 MiB.
	MaxBytes int64
	// MaxFiles is how many files stay in Dir; the oldest goes, once there is something in the newest. Default 10; negative: no limit.
	MaxFiles int
	// QueueLines and QueueBytes bound what waits to be written. Defaults 16384 and 16 MiB.
	QueueLines, QueueBytes int
	// Compress writes files of gzip, named .jsonl.gz; about a tenth of the size. What was written in the last second may be missing after a crash.
	Compress bool
	// Sync, if more than zero, is how long at most what was written may not have reached the disk (fsync). Zero leaves that to the system.
	Sync time.Duration
	// Bodies records the text of messages. Without it there is other text of about the same length, which the rules take for the same.
	Bodies bool
	// Options records the values of publish options, which are the push services' secrets. Without it there are the fields'
	// names, and for each value a stand-in that tells only whether it changed.
	Options bool
	// Logger gets a record when the files cannot be written any more, and one when they can again. Nil means none.
	Logger *slog.Logger
}

// Recorder records a live Engine as a trace that replays to the same decisions. Give its Observer to the Engine's Config, and Close it after
// the Engine. It writes from a goroutine of its own and never makes the Engine wait: what does not fit into its queue is dropped and counted.
//
// Host and policy of the Engine it learns from [push.Observer].Started, so it has to be in the Config that the Engine is made with.
//
// Each file can be replayed by itself: it begins with a config line, and each account's first event in it comes after an account line that says
// what was known of the account. Only what was notified shortly before the file began, and what waited then, is not in it; Join reads the files
// of a recording as one trace that lacks nothing. After a loss the account in question has a new account line.
//
// With the events it records what was decided, what the host had answered, and what was sent, answered and given up, when it was: a replay of
// it makes nothing up, and says where it would decide otherwise.
//
// If the disk is full, or fails otherwise, what was written stays: the file ends with a whole line, no older one is removed, what comes is
// counted as lost, and a new file is begun as soon as one can be, tried once a second at first and once a minute later.
type Recorder struct {
	cfg RecorderConfig

	mu       sync.Mutex
	accounts map[string]*shadow
	file     int // which file lines belong to that are queued now
	queue    []entry
	bytes    int
	full     bool // the file that is being written is long enough
	stats    RecorderStats
	closed   bool
	// started, host and policy are those of the Engine.
	started time.Time
	host    string
	policy  push.Policy
	mask    *Mask // of publish options

	wake chan struct{} // something is queued, or it is closed
	done chan struct{} // the writer has returned
}

// RecorderStats counts what a Recorder did.
type RecorderStats struct {
	// Lines and Bytes were written to so many Files.
	Lines, Files uint64
	Bytes        int64
	// Dropped lines did not fit into the queue, or could not be written because of Err.
	Dropped uint64
	// Unreadable events were left out because a Reader could not have read them: their JIDs are none.
	Unreadable uint64
	// Failing: nothing can be written at present.
	Failing bool
	// Err is the last error of a file.
	Err error
}

// entry is a line to be written. Exactly one of account, event, reply, sent and dropped is set, or none for the beginning of the next file.
type entry struct {
	at      time.Time
	name    string // the account
	account *push.AccountStatus
	event   push.Event
	number  uint64
	decided *Recorded
	key     push.Key
	reply   *push.Reply
	outcome push.Outcome
	sent    *Sent
	dropped *Dropped
	size    int
}

// NewRecorder returns a running Recorder.
func NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 64<<20)
	cfg.MaxFiles = cmp.Or(cfg.MaxFiles, 10)
	cfg.QueueLines = cmp.Or(cfg.QueueLines, 16384)
	cfg.QueueBytes = cmp.Or(cfg.QueueBytes, 16<<20)
	if cfg.Create == nil {
		if cfg.Dir == "" {
			return nil, errors.New("trace: RecorderConfig has neither Dir nor Create")
		}
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("trace: directory of recordings: %w", err)
		}
		dir := cfg.Dir
		cfg.Create = func(name string) (io.WriteCloser, error) {
			return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		}
	} else {
		cfg.Dir = ""
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{cfg: cfg, accounts: make(map[string]*shadow), file: 1, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if !cfg.Options {
		r.mask = NewMask()
	}
	go r.write()
	return r, nil
}

// Stats returns what was done so far.
func (r *Recorder) Stats() RecorderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Close writes what is queued and ends the recording. The error is that of the last file.
func (r *Recorder) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.signal()
	<-r.done
	return r.Stats().Err
}

// Observer returns what has to be told of the Engine's doings.
func (r *Recorder) Observer() *push.Observer {
	return &push.Observer{Quick: true, Started: r.start, Read: r.read, Decided: r.decided, Affected: r.affected, Sent: r.sent, Replied: r.replied}
}

// start begins anew: nothing of what an earlier Engine knew holds any more.
func (r *Recorder) start(at time.Time, host string, p push.Policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	again := !r.started.IsZero()
	r.started, r.host, r.policy = at, host, p
	if again {
		clear(r.accounts)
		r.full = true
	}
}

func (r *Recorder) read(account string, at time.Time, rs []push.Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.shadow(account, at); s.read(rs) && s.file > 0 {
		s.file = stale
	}
}

// stale, as a shadow's file, says that the file has an account line which is not true any more.
const stale = -1

func (r *Recorder) decided(number uint64, at time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.begin(d.Account, at)
	if s == nil {
		return
	}
	e := entry{at: at, name: d.Account, event: kept(ev, r.mask), number: number, decided: RecordedOf(d)}
	e.size = size(e.event) + 160*len(d.Verdicts)
	r.push(s, e)
	s.event(at, ev, d)
	if s.empty() && s.file != stale {
		delete(r.accounts, d.Account)
	}
}

func (r *Recorder) affected(account string, at time.Time, e *push.Effects) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range e.Drops {
		if d := &e.Drops[i]; d.Reason == push.ReasonTooOld {
			if s := r.begin(account, at); s != nil {
				r.push(s, entry{at: at, name: account, size: 128 + 8*len(d.Events), dropped: &Dropped{account, d.Key, d.Class.String(), d.Count, slices.Clone(d.Events)}})
			}
		}
	}
	r.shadow(account, at).effects(at, e)
}

func (r *Recorder) sent(at time.Time, n *push.Notification) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.begin(n.Account, at); s != nil {
		r.push(s, entry{at: at, name: n.Account, size: 160 + 8*len(n.Events), sent: &Sent{
			n.Account, n.Key, n.Class.String(), n.Count, n.Try, n.Unread, slices.Clone(n.Events),
		}})
	}
}

func (r *Recorder) replied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.begin(n.Account, at)
	if s == nil {
		return
	}
	r.push(s, entry{at: at, name: n.Account, key: n.Key, reply: &reply, outcome: res.Outcome, size: 128})
	s.replied(n.Key, &res)
}

// shadow returns what is known of an account.
func (r *Recorder) shadow(account string, at time.Time) *shadow {
	s := r.accounts[account]
	if s == nil {
		s = &shadow{mask: r.mask, limit: cmp.Or(r.policy.MaxRegistrations, 5)}
		r.accounts[account] = s
	}
	s.touched = at
	return s
}

// begin makes ready for a line of an account: it begins the next file if it is time for that, and queues the account line that the file needs.
func (r *Recorder) begin(account string, at time.Time) *shadow {
	if r.closed {
		return nil
	}
	if r.full {
		r.full = false
		r.file++
		r.sweep(at)
		r.add(entry{})
	}
	s := r.shadow(account, at)
	if s.file == r.file {
		return s
	}
	if s.file != stale && s.empty() {
		s.file = r.file
		return s
	}
	if r.push(s, entry{at: at, name: account, account: s.status(account), size: 128 * (len(s.sessions) + len(s.regs))}) {
		s.file = r.file
	}
	return s
}

// sweep forgets accounts that the Engine has surely forgotten too.
func (r *Recorder) sweep(now time.Time) {
	p := &r.policy
	age := time.Hour + 2*(cmp.Or(p.RememberFor, 10*time.Minute)+cmp.Or(p.Expire, 12*time.Hour)+max(p.MinInterval, 0))
	for name, s := range r.accounts {
		if len(s.sessions) == 0 && now.Sub(s.touched) > age {
			delete(r.accounts, name)
		}
	}
}

// push queues a line if there is room. If not, the account needs a new account line.
func (r *Recorder) push(s *shadow, e entry) bool {
	if len(r.queue) >= r.cfg.QueueLines || r.bytes+e.size > r.cfg.QueueBytes {
		r.stats.Dropped++
		s.file = stale
		return false
	}
	r.add(e)
	return true
}

func (r *Recorder) add(e entry) {
	r.queue = append(r.queue, e)
	r.bytes += e.size
	r.signal()
}

func (r *Recorder) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// kept returns a copy of ev that shares nothing with the host, and has no more of stanzas than is written.
func kept(ev push.Event, m *Mask) push.Event {
	queue := func(sts []push.Stanza) []push.Stanza {
		sts = slices.Clone(sts)
		for i := range sts {
			sts[i].XML = ""
		}
		return sts
	}
	switch e := ev.(type) {
	case push.AckDelayed:
		e.Stanzas = queue(e.Stanzas)
		return e
	case push.StanzaQueued:
		e.Stanza.XML = ""
		return e
	case push.ArchiveAdded:
		e.Stanza.XML = ""
		return e
	case push.Offline:
		e.Stanza.XML = ""
		return e
	case push.Groupchat:
		e.Stanza.XML = ""
		return e
	case push.Acknowledged:
		e.IDs = slices.Clone(e.IDs)
		return e
	case push.HibernationStart:
		e.Stanzas = queue(e.Stanzas)
		return e
	case push.Ping:
		e.Registrations = slices.Clone(e.Registrations)
		return e
	case push.PushEnable:
		e.Options = m.Fields(e.Options)
		return e
	case push.SessionOpen, push.SessionRestored, push.SessionClose, push.PushDisable, push.HibernationEnd, push.AffiliationNone, push.AccountRemoved, push.SessionActive, push.SessionPresence, push.Displayed, push.ChatChanged: // values without slices
	}
	return ev
}

// size is about how much memory an event holds.
func size(ev push.Event) int {
	n := 256
	stanza := func(st *push.Stanza) { n += 256 + len(st.ID) + len(st.From) + len(st.To) + len(st.Body) }
	switch e := ev.(type) {
	case push.AckDelayed:
		for i := range e.Stanzas {
			stanza(&e.Stanzas[i])
		}
	case push.HibernationStart:
		for i := range e.Stanzas {
			stanza(&e.Stanzas[i])
		}
	case push.StanzaQueued:
		stanza(&e.Stanza)
	case push.ArchiveAdded:
		stanza(&e.Stanza)
	case push.Offline:
		stanza(&e.Stanza)
	case push.Groupchat:
		stanza(&e.Stanza)
	case push.Ping:
		n += 64 * len(e.Registrations)
	case push.PushEnable:
		for i := range e.Options {
			n += 64 + len(e.Options[i].Var)
			for _, v := range e.Options[i].Values {
				n += 16 + len(v)
			}
		}
	case push.Acknowledged:
		for _, id := range e.IDs {
			n += 16 + len(id)
		}
	case push.SessionOpen, push.SessionRestored, push.SessionClose, push.PushDisable, push.HibernationEnd, push.AffiliationNone, push.AccountRemoved,
		push.SessionActive, push.SessionPresence, push.Displayed, push.ChatChanged:
	}
	return n
}
