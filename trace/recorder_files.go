package trace

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// files is what the writing goroutine of a Recorder has open.
type files struct {
	r      *Recorder
	w      *Writer
	c      io.WriteCloser
	name   string
	zip    *gzip.Writer // writes to out
	out    bytes.Buffer // whole lines, or what gzip made of them
	lines  uint64       // in out, or in zip
	number int
	good   int64     // the size of the file as far as it is whole
	size   int64     // of its lines
	last   time.Time // of the last line: time never falls in a trace
	told   bool      // the next file was asked for
	pruned bool      // old files were removed because of this one

	flushed, synced time.Time
	dirty           bool // written and not synced

	// After a failure nothing is written until retry; wait doubles.
	failing bool
	retry   time.Time
	wait    time.Duration
	lost    uint64
}

const (
	retryMin, retryMax = time.Second, time.Minute
	zipEvery           = time.Second
	flushSize          = 256 << 10
)

// write is the goroutine that writes the files.
func (r *Recorder) write() {
	defer close(r.done)
	f := files{r: r, w: NewWriter(r.cfg.Bodies)}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var batch []entry
	for {
		select {
		case <-r.wake:
		case <-timer.C:
		}
		r.mu.Lock()
		batch, r.queue = r.queue, batch[:0]
		r.bytes = 0
		closed := r.closed
		r.mu.Unlock()
		for i := range batch {
			f.put(&batch[i])
		}
		clear(batch)
		if closed {
			f.close()
			return
		}
		if again := f.settle(); again > 0 {
			timer.Reset(again)
		}
	}
}

func (f *files) put(e *entry) {
	if e.name == "" {
		f.close()
		f.failing = f.failing && time.Now().Before(f.retry)
		return
	}
	if f.failing {
		f.lose(1)
		if !time.Now().Before(f.retry) {
			f.next() // accounts have lost lines: what follows needs a file of its own, with what is known of them
		}
		return
	}
	at := e.at
	if at.Before(f.last) {
		at = f.last
	}
	var line []byte
	switch {
	case e.account != nil:
		line = f.w.Account(at, e.account)
	case e.reply != nil:
		line = f.w.Reply(at, e.name, e.key, *e.reply, e.outcome.String())
	case e.sent != nil:
		line = f.w.Sent(at, e.sent)
	case e.dropped != nil:
		line = f.w.Dropped(at, e.dropped)
	default:
		line = f.w.Event(at, e.number, e.event, e.decided)
	}
	if line == nil {
		f.count(func(s *RecorderStats) { s.Unreadable++ })
		return
	}
	if f.c == nil {
		line = bytes.Clone(line) // the config line comes before it
		if !f.open(at) {
			f.lose(1)
			return
		}
	}
	f.line(line)
	f.lines++
	f.last = at
	if f.out.Len() >= flushSize {
		f.flush()
	}
	if f.size >= f.r.cfg.MaxBytes {
		f.next()
	}
}

func (f *files) line(line []byte) {
	f.size += int64(len(line))
	if f.zip != nil {
		f.zip.Write(line)
		return
	}
	f.out.Write(line)
}

func (f *files) open(at time.Time) bool {
	f.r.mu.Lock()
	started, host, policy := f.r.started, f.r.host, f.r.policy
	f.r.mu.Unlock()
	f.number++
	f.name = fmt.Sprintf("push-%s-%04d.jsonl", at.UTC().Format("20060102T150405.000"), f.number)
	if f.r.cfg.Compress {
		f.name += ".gz"
	}
	c, err := f.r.cfg.Create(f.name)
	if err != nil {
		f.fail(err)
		return false
	}
	f.c, f.size, f.good, f.last, f.told, f.pruned = c, 0, 0, at, false, false
	f.out.Reset()
	f.lines = 0
	if f.r.cfg.Compress {
		f.zip = gzip.NewWriter(&f.out)
	}
	f.line(f.w.Config(started, host, policy))
	f.count(func(s *RecorderStats) { s.Files++ })
	return true
}

// settle writes what is ready, and returns after how long to look again; zero: not.
func (f *files) settle() (again time.Duration) {
	now := time.Now()
	if f.c == nil {
		return 0
	}
	if f.zip != nil && f.lines > 0 {
		if wait := zipEvery - now.Sub(f.flushed); wait > 0 {
			return wait
		}
	}
	f.flush()
	if every := f.r.cfg.Sync; every > 0 && f.dirty && f.c != nil {
		if wait := every - now.Sub(f.synced); wait > 0 {
			return wait
		}
		f.sync()
	}
	return 0
}

func (f *files) sync() {
	if s, ok := f.c.(interface{ Sync() error }); ok {
		if err := s.Sync(); err != nil {
			f.fail(err)
			return
		}
	}
	f.synced, f.dirty = time.Now(), false
}

// flush writes whole lines. If they cannot be written whole, the file is cut back to what is.
func (f *files) flush() {
	if f.c == nil {
		return
	}
	if f.zip != nil {
		f.zip.Flush()
	}
	f.flushed = time.Now()
	if f.out.Len() == 0 {
		return
	}
	b := f.out.Bytes()
	n, err := f.c.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		whole := 0
		if !f.r.cfg.Compress {
			whole = bytes.LastIndexByte(b[:min(n, len(b))], '\n') + 1
		}
		kept := uint64(bytes.Count(b[:whole], []byte{'\n'}))
		if f.good == 0 && kept > 0 {
			kept-- // the config line
		}
		f.good += int64(whole)
		f.count(func(s *RecorderStats) { s.Lines += kept; s.Bytes += int64(whole) })
		lost := f.lines - min(kept, f.lines)
		f.fail(err)
		f.lose(lost)
		return
	}
	f.good += int64(n)
	lines := f.lines
	f.out.Reset()
	f.lines, f.dirty = 0, true
	f.count(func(s *RecorderStats) { s.Lines += lines; s.Bytes += int64(n); s.Failing = false })
	if f.lost > 0 {
		f.r.cfg.Logger.Info("trace: recording goes on", slog.String("file", f.name), slog.Uint64("lines_lost", f.lost))
		f.lost = 0
	}
	f.wait = 0
	f.prune()
}

// prune removes the oldest files, once there is something in the newest.
func (f *files) prune() {
	keep := f.r.cfg.MaxFiles
	if f.pruned || f.r.cfg.Dir == "" || keep < 1 {
		return
	}
	f.pruned = true
	old, err := filepath.Glob(filepath.Join(f.r.cfg.Dir, "push-*.jsonl*"))
	if err != nil || len(old) <= keep {
		return
	}
	slices.Sort(old)
	for _, name := range old[:len(old)-keep] {
		os.Remove(name)
	}
}

// fail gives the file up, cut back to its whole lines, and waits before another is begun.
func (f *files) fail(err error) {
	if f.c != nil {
		if t, ok := f.c.(interface{ Truncate(int64) error }); ok {
			_ = t.Truncate(f.good)
		}
		_ = f.c.Close()
		if f.good == 0 && f.r.cfg.Dir != "" {
			os.Remove(filepath.Join(f.r.cfg.Dir, f.name))
		}
		f.c = nil
	}
	f.out.Reset()
	f.zip, f.lines, f.dirty = nil, 0, false
	if f.wait == 0 {
		f.r.cfg.Logger.Error("trace: recording stopped: what comes is lost until a file can be written again", slog.String("file", f.name), slog.Any("error", err))
	}
	f.wait = min(max(2*f.wait, retryMin), retryMax)
	f.failing, f.retry = true, time.Now().Add(f.wait)
	f.count(func(s *RecorderStats) { s.Err, s.Failing = err, true })
}

// lose counts lines that could not be written.
func (f *files) lose(n uint64) {
	f.lost += n
	f.count(func(s *RecorderStats) { s.Dropped += n })
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

func (f *files) close() {
	if f.c != nil && f.zip != nil {
		f.zip.Close()
		f.zip = nil
	}
	f.flush()
	if f.c != nil && f.r.cfg.Sync > 0 {
		f.sync()
	}
	if f.c != nil {
		if err := f.c.Close(); err != nil {
			f.count(func(s *RecorderStats) { s.Err = err })
		}
	}
	f.c, f.zip, f.told = nil, nil, false
}

func (f *files) count(add func(*RecorderStats)) {
	f.r.mu.Lock()
	add(&f.r.stats)
	f.r.mu.Unlock()
}

// Join returns the files of a recording, in their order, as one trace. Each may be compressed, and end in the middle of a line.
func Join(rs ...io.Reader) io.Reader {
	parts := make([]io.Reader, len(rs))
	for i, r := range rs {
		parts[i] = &part{in: r, end: i == len(rs)-1}
	}
	return io.MultiReader(parts...)
}

// part is one of several files.
type part struct {
	in, r io.Reader
	last  byte
	end   bool // nothing comes after it
}

func (p *part) Read(b []byte) (int, error) {
	if p.r == nil {
		r, err := unzip(p.in)
		if err != nil {
			return 0, err
		}
		p.r, p.last = r, '\n'
	}
	n, err := p.r.Read(b)
	if n > 0 {
		p.last = b[n-1]
	}
	if n == 0 && err == io.EOF && p.last != '\n' && len(b) > 0 && !p.end {
		b[0], p.last = '\n', '\n'
		return 1, nil
	}
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}
