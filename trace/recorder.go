package trace

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/xmpp-push/push"
)

// RecorderConfig is what a Recorder needs. Host, Policy, and Dir or Create are required.
type RecorderConfig struct {
	// Host and Policy are those of the Engine.
	Host   string
	Policy push.Policy
	// Dir is the directory of the files, which is made if need be. They are named push-TIME-NUMBER.jsonl, and only their owner may read them.
	// Nothing else in it should be named like that, since old ones are removed.
	Dir string
	// Create makes a file, if Dir is not enough. Then nothing is ever removed.
	Create func(name string) (io.WriteCloser, error)
	// MaxBytes is the size at which the next file is begun. Default 64 MiB.
	MaxBytes int64
	// MaxFiles is how many files stay in Dir; the oldest goes. Default 10; negative: no limit.
	MaxFiles int
	// QueueLines and QueueBytes bound what waits to be written. Defaults 16384 and 16 MiB.
	QueueLines, QueueBytes int
	// Bodies records the text of messages. Without it there is other text of about the same length, which the rules take for the same.
	Bodies bool
	// Options records the values of publish options, which are the push services' secrets. Without it there are only the fields' names.
	Options bool
}

// Recorder records a live Engine as a trace that replays to the same decisions. Give its Observer to the Engine's Config, and Close it after
// the Engine. It writes from a goroutine of its own and never makes the Engine wait: what does not fit into its queue is dropped and counted.
//
// Each file can be replayed by itself: it begins with a config line, and each account's first event in it comes after an account line that says
// what was known of the account. Only what was notified shortly before the file began, and what waited then, is not in it; Join reads the files
// of a recording as one trace that lacks nothing. After a drop the account in question has a new account line.
//
// A replay knows no more than the trace: not the host's vetoes ([push.Vetoer]) and not sessions on other nodes ([push.Liveness]). Where those
// decided, it decides otherwise.
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

	wake chan struct{} // something is queued, or it is closed
	done chan struct{} // the writer has returned
}

// RecorderStats counts what a Recorder did.
type RecorderStats struct {
	// Lines were written to so many Files.
	Lines, Files uint64
	// Dropped lines did not fit into the queue, or could not be written because of Err.
	Dropped uint64
	// Unreadable events were left out because a Reader could not have read them: their JIDs are none.
	Unreadable uint64
	// Err is the last error of a file.
	Err error
}

// entry is a line to be written. Exactly one of account, event and reply is set, or none for the beginning of the next file.
type entry struct {
	at      int64
	name    string // the account
	account *push.AccountStatus
	event   push.Event
	key     push.Key
	reply   *push.Reply
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
		dir, keep := cfg.Dir, cfg.MaxFiles
		cfg.Create = func(name string) (io.WriteCloser, error) { return createFile(dir, name, keep) }
	}
	r := &Recorder{cfg: cfg, accounts: make(map[string]*shadow), file: 1, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go r.write()
	return r, nil
}

// createFile makes a file, and removes the oldest beyond keep.
func createFile(dir, name string, keep int) (io.WriteCloser, error) {
	if old, err := filepath.Glob(filepath.Join(dir, "push-*.jsonl")); err == nil && keep > 0 && len(old) >= keep {
		slices.Sort(old)
		for _, f := range old[:len(old)-keep+1] {
			os.Remove(f)
		}
	}
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
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
	return &push.Observer{Read: r.read, Decided: r.decided, Affected: r.affected, Replied: r.replied}
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

func (r *Recorder) decided(_ uint64, at time.Time, ev push.Event, d *push.Decision, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.begin(d.Account, at)
	if s == nil {
		return
	}
	e := entry{at: at.UnixMilli(), name: d.Account, event: kept(ev)}
	e.size = size(e.event)
	r.push(s, e)
	s.event(at, ev, d)
	if s.empty() && s.file != stale {
		delete(r.accounts, d.Account)
	}
}

func (r *Recorder) affected(account string, at time.Time, e *push.Effects) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shadow(account, at).effects(at, e)
}

func (r *Recorder) replied(at time.Time, n *push.Notification, reply push.Reply, res push.Result, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.begin(n.Account, at)
	if s == nil {
		return
	}
	r.push(s, entry{at: at.UnixMilli(), name: n.Account, key: n.Key, reply: &reply, size: 128})
	s.replied(n.Key, &res)
}

// shadow returns what is known of an account.
func (r *Recorder) shadow(account string, at time.Time) *shadow {
	s := r.accounts[account]
	if s == nil {
		s = &shadow{}
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
	if r.push(s, entry{at: at.UnixMilli(), name: account, account: s.status(account), size: 128 * (len(s.sessions) + len(s.regs))}) {
		s.file = r.file
	}
	return s
}

// sweep forgets accounts that the Engine has surely forgotten too.
func (r *Recorder) sweep(now time.Time) {
	p := &r.cfg.Policy
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

// kept returns a copy of ev that shares nothing with the host.
func kept(ev push.Event) push.Event {
	switch e := ev.(type) {
	case push.AckDelayed:
		e.Stanzas = slices.Clone(e.Stanzas)
		return e
	case push.Acknowledged:
		e.IDs = slices.Clone(e.IDs)
		return e
	case push.HibernationStart:
		e.Stanzas = slices.Clone(e.Stanzas)
		return e
	case push.Ping:
		e.Registrations = slices.Clone(e.Registrations)
		return e
	case push.PushEnable:
		e.Options = slices.Clone(e.Options)
		for i := range e.Options {
			e.Options[i].Values = slices.Clone(e.Options[i].Values)
		}
		return e
	case push.SessionOpen, push.SessionRestored, push.SessionClose, push.PushDisable, push.StanzaQueued, push.HibernationEnd, push.ArchiveAdded, push.Offline,
		push.Groupchat, push.AffiliationNone, push.AccountRemoved: // values without slices
	}
	return ev
}

// size is about how much memory an event holds.
func size(ev push.Event) int {
	n := 256
	stanza := func(st *push.Stanza) { n += 128 + len(st.ID) + len(st.From) + len(st.To) + len(st.Body) }
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
	case push.SessionOpen, push.SessionRestored, push.SessionClose, push.PushDisable, push.HibernationEnd, push.AffiliationNone, push.AccountRemoved:
	}
	return n
}

// write is the goroutine that writes the files.
func (r *Recorder) write() {
	defer close(r.done)
	f := files{r: r, w: NewWriter(r.cfg.Bodies, r.cfg.Options)}
	var batch []entry
	for {
		<-r.wake
		r.mu.Lock()
		batch, r.queue = r.queue, batch[:0]
		r.bytes = 0
		closed := r.closed
		r.mu.Unlock()
		for i := range batch {
			f.put(&batch[i])
		}
		clear(batch)
		f.flush()
		if closed {
			f.close()
			return
		}
	}
}

// files is what the writer has open.
type files struct {
	r      *Recorder
	w      *Writer
	c      io.WriteCloser
	buf    *bufio.Writer
	number int
	size   int64
	last   int64 // the time of the last line: time never falls in a trace
	failed bool  // the rest of the file is left out
	told   bool  // the next file was asked for
}

func (f *files) put(e *entry) {
	if e.name == "" {
		f.close()
		return
	}
	if f.c == nil && !f.failed {
		f.open(e.at)
	}
	ms := max(e.at, f.last)
	at := time.UnixMilli(ms)
	var line []byte
	switch {
	case e.account != nil:
		line = f.w.Account(at, e.account)
	case e.reply != nil:
		line = f.w.Reply(at, e.name, e.key, *e.reply)
	default:
		line = f.w.Event(at, e.event)
	}
	if line == nil {
		f.count(func(s *RecorderStats) { s.Unreadable++ })
		return
	}
	if f.failed || !f.writeLine(line) {
		f.count(func(s *RecorderStats) { s.Dropped++ })
		return
	}
	f.last = ms
	f.count(func(s *RecorderStats) { s.Lines++ })
}

func (f *files) writeLine(line []byte) bool {
	if _, err := f.buf.Write(line); err != nil {
		f.fail(err)
		return false
	}
	if f.size += int64(len(line)); f.size >= f.r.cfg.MaxBytes {
		f.next()
	}
	return true
}

func (f *files) open(at int64) {
	f.number++
	name := fmt.Sprintf("push-%s-%04d.jsonl", time.UnixMilli(at).UTC().Format("20060102T150405.000"), f.number)
	c, err := f.r.cfg.Create(name)
	if err != nil {
		f.fail(err)
		return
	}
	f.c, f.buf, f.size, f.last, f.told = c, bufio.NewWriterSize(c, 64<<10), 0, at, false
	f.count(func(s *RecorderStats) { s.Files++ })
	f.writeLine(f.w.Config(f.r.cfg.Host, f.r.cfg.Policy))
}

// fail gives the file up: the rest of it is left out, and another is begun.
func (f *files) fail(err error) {
	f.failed = true
	f.count(func(s *RecorderStats) { s.Err = err })
	f.next()
}

// next asks for the next file to be begun.
func (f *files) next() {
	if !f.told {
		f.told = true
		f.r.mu.Lock()
		f.r.full = true
		f.r.mu.Unlock()
	}
}

func (f *files) flush() {
	if f.c != nil && !f.failed {
		if err := f.buf.Flush(); err != nil {
			f.fail(err)
		}
	}
}

func (f *files) close() {
	f.flush()
	if f.c != nil {
		if err := f.c.Close(); err != nil {
			f.count(func(s *RecorderStats) { s.Err = err })
		}
	}
	f.c, f.failed, f.told = nil, false, false
}

func (f *files) count(add func(*RecorderStats)) {
	f.r.mu.Lock()
	add(&f.r.stats)
	f.r.mu.Unlock()
}

// Join returns the files of a recording, in their order, as one trace.
func Join(rs ...io.Reader) io.Reader {
	for i := 1; i < len(rs); i++ {
		rs[i] = &headless{r: bufio.NewReader(rs[i])}
	}
	return io.MultiReader(rs...)
}

// headless leaves the first line out, which is the config line of a Recorder's file.
type headless struct {
	r    *bufio.Reader
	past bool
}

func (h *headless) Read(p []byte) (int, error) {
	for !h.past {
		if _, err := h.r.ReadSlice('\n'); err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, err
		} else if err == nil {
			h.past = true
		}
	}
	return h.r.Read(p)
}
