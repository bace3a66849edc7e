package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// commitGrace is how long a caller whose context has ended still waits for a transaction that is under way.
	commitGrace = 5 * time.Second
	// patience is how long a change goes on trying against other processes' transactions.
	patience = 10 * time.Second
	// batchSize is how many changes a transaction has at most, so that other processes get their turn.
	batchSize = 256
	// longestWait is the longest time between two tries.
	longestWait = 32 * time.Millisecond
)

// writer commits the changes of all callers, those that are waiting at the same time in one transaction (group commit): what a disk or a network can
// do is so many commits a second, not so many changes. Each caller gets the answer to its own change; one that fails takes no other with it.
//
// Goroutines run while there is something to do: one for SQLite, which has one writer at a time anyway. Changes of one account are never in two
// transactions at once.
type writer struct {
	s *Store

	mu      sync.Mutex
	queue   []*job
	stale   int             // jobs in the queue that were withdrawn
	active  map[string]bool // accounts in a transaction
	running int
}

type jobState int

const (
	jobWaits     jobState = iota
	jobRuns               // in a transaction: what comes of it is not the caller's to say
	jobWithdrawn          // by its caller
)

// job is the change of one caller. Its writer's mu guards what changes.
type job struct {
	ctx     context.Context
	account string // "": of several
	// do makes the change. It is called again if the transaction has to be.
	do    func(ctx context.Context, t *tx) error
	begin time.Time
	wait  time.Duration // before the next try
	// alone: not with others in a transaction.
	alone  bool
	state  jobState
	queued bool
	in     *batch
	done   chan error // the answer
}

// batch is a transaction and the jobs in it.
type batch struct {
	jobs   []*job
	left   int // callers that still wait
	cancel context.CancelFunc
}

// tx is a transaction. It remembers the statements that it has prepared, if that is worth while.
type tx struct {
	*sql.Tx
	prepared map[string]*sql.Stmt
}

// query is QueryContext.
func (t *tx) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if t.prepared == nil {
		return t.QueryContext(ctx, query, args...)
	}
	stmt, err := t.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// exec is ExecContext.
func (t *tx) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.prepared == nil {
		return t.ExecContext(ctx, query, args...)
	}
	stmt, err := t.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args...)
}

func (t *tx) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt := t.prepared[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := t.PrepareContext(ctx, query)
	if err == nil {
		t.prepared[query] = stmt
	}
	return stmt, err
}

// write makes a change of an account, or of several if account is empty, and returns when it is durable.
func (s *Store) write(ctx context.Context, account string, do func(ctx context.Context, t *tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{ctx: ctx, account: account, do: do, begin: time.Now(), alone: account == "", done: make(chan error, 1)}
	w := &s.writer
	w.mu.Lock()
	j.queued = true
	w.queue = append(w.queue, j)
	w.start()
	w.mu.Unlock()
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
	}
	if w.withdraw(j) {
		return ctx.Err()
	}
	grace := time.NewTimer(commitGrace)
	defer grace.Stop()
	select {
	case err := <-j.done:
		return err
	case <-grace.C:
		w.leave(j)
		return fmt.Errorf("%w, and nobody knows what came of the transaction", ctx.Err())
	}
}

// start starts as many goroutines as there is work for. mu is locked.
func (w *writer) start() {
	for w.running < w.s.dialect.writers {
		b := w.take()
		if b == nil {
			return
		}
		w.running++
		go w.run(b)
	}
}

func (w *writer) run(b *batch) {
	for b != nil {
		w.commit(b)
		w.mu.Lock()
		for _, j := range b.jobs {
			delete(w.active, j.account)
		}
		if b = w.take(); b == nil {
			w.running--
		}
		w.start() // an account that was active may have been all that others waited for
		w.mu.Unlock()
	}
}

// take takes what makes the next transaction out of the queue, or nil. mu is locked.
func (w *writer) take() *batch {
	b := &batch{}
	rest := w.queue[:0]
	for _, j := range w.queue {
		switch {
		case j.state == jobWithdrawn:
			w.stale--
		case len(b.jobs) == batchSize, w.active[j.account], len(b.jobs) > 0 && (j.alone || b.jobs[0].alone):
			rest = append(rest, j)
		default:
			b.jobs = append(b.jobs, j)
			j.in, j.queued = b, false
		}
	}
	clear(w.queue[len(rest):])
	w.queue = rest
	if len(b.jobs) == 0 {
		return nil
	}
	b.left = len(b.jobs)
	for _, j := range b.jobs {
		if j.account != "" {
			w.active[j.account] = true
		}
	}
	return b
}

// withdraw takes a job back, unless it is in a transaction.
func (w *writer) withdraw(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.state == jobRuns {
		return false
	}
	j.state = jobWithdrawn
	if j.in != nil {
		w.left(j.in)
		return true
	}
	if !j.queued {
		return true // it waits for its next try
	}
	if w.stale++; w.stale > len(w.queue)/2 {
		rest := w.queue[:0]
		for _, j := range w.queue {
			if j.state != jobWithdrawn {
				rest = append(rest, j)
			}
		}
		clear(w.queue[len(rest):])
		w.queue, w.stale = rest, 0
	}
	return true
}

// leave says that the caller of a job in a transaction does not wait for it any more.
func (w *writer) leave(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.in != nil {
		w.left(j.in)
	}
}

// left ends a transaction that nobody waits for. mu is locked.
func (w *writer) left(b *batch) {
	if b.left--; b.left == 0 && b.cancel != nil {
		b.cancel()
	}
}

// commit makes the changes of a batch, and answers their callers or leaves the jobs to another try.
func (w *writer) commit(b *batch) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.mu.Lock()
	b.cancel = cancel
	if b.left == 0 {
		cancel()
	}
	w.mu.Unlock()

	jobs, failed, err := w.transact(ctx, b)
	switch {
	case err == nil:
		w.s.commits.Add(1)
		w.s.writes.Add(uint64(len(jobs)))
		for _, j := range jobs {
			j.done <- nil
		}
	case failed != nil && len(jobs) > 1:
		// It shows by itself what is wrong with it; what was done of the others is undone.
		failed.alone = true
		w.again(jobs, nil)
	default:
		w.again(jobs, err)
	}
}

// transact makes the changes of a batch in one transaction. It returns the jobs that are still to be answered and, if it was one of them that
// went wrong, which.
func (w *writer) transact(ctx context.Context, b *batch) (jobs []*job, failed *job, err error) {
	// The transaction has a context of its own, so that the end of a caller's does not leave the outcome of a commit open.
	t, err := w.s.begin(ctx)
	if err != nil {
		return b.jobs, nil, err
	}
	defer func() { _ = t.Rollback() }() // after a commit it does nothing
	taken, err := w.s.enter(ctx, t, b.jobs)
	if err != nil {
		return b.jobs, nil, err
	}
	var later []*job
	w.mu.Lock()
	for _, j := range b.jobs {
		switch {
		case j.state == jobWithdrawn:
		case taken[j.account]:
			later = append(later, j)
		default:
			j.state = jobRuns
			jobs = append(jobs, j)
		}
	}
	w.mu.Unlock()
	w.again(later, errTaken)
	for _, j := range jobs {
		if err := j.do(ctx, t); err != nil {
			return jobs, j, err
		}
	}
	if len(jobs) == 0 {
		return nil, nil, nil
	}
	if err := t.Commit(); err != nil {
		return jobs, nil, commitError{err}
	}
	return jobs, nil, nil
}

// errTaken: another process is changing the account.
var errTaken = errors.New("another process is changing the account")

// again has jobs tried again, at once if there is no error; those that have no time left, or whose error is no transient one, it answers.
func (w *writer) again(jobs []*job, err error) {
	var later []*job
	wait := time.Duration(0)
	w.mu.Lock()
	for _, j := range jobs {
		if j.state == jobWithdrawn {
			continue
		}
		w.left(j.in)
		j.in = nil
		if e := ended(j.ctx); e != nil {
			if err != nil && !errors.Is(err, e) {
				e = fmt.Errorf("%w: %w", e, err)
			}
			j.done <- e
			continue
		}
		if err != nil {
			if !transient(err) || time.Since(j.begin) > patience {
				j.done <- err
				continue
			}
			j.wait = min(max(2*j.wait, time.Millisecond), longestWait)
			wait = max(wait, j.wait)
		}
		j.state = jobWaits
		later = append(later, j)
	}
	requeue := func() {
		later = slices.DeleteFunc(later, func(j *job) bool { return j.state == jobWithdrawn })
		for _, j := range later {
			j.queued = true
		}
		w.queue = append(later, w.queue...)
	}
	if len(later) > 0 && wait == 0 {
		requeue() // whoever called has not ended yet, and takes from the queue next
	}
	w.mu.Unlock()
	if len(later) > 0 && wait > 0 {
		time.AfterFunc(rand.N(wait)+wait/2, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			requeue()
			w.start()
		})
	}
}

// begin begins a transaction.
func (s *Store) begin(ctx context.Context) (*tx, error) {
	t, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: s.dialect.isolation})
	if err != nil {
		return nil, err
	}
	if s.dialect.prepares {
		return &tx{t, map[string]*sql.Stmt{}}, nil
	}
	return &tx{t, nil}, nil
}

// enter makes sure that nobody else changes the jobs' accounts until the transaction ends, and returns those for which another process has done so.
func (s *Store) enter(ctx context.Context, t *tx, jobs []*job) (taken map[string]bool, err error) {
	if !s.dialect.entersAccounts {
		_, err := t.ExecContext(ctx, s.table(s.dialect.enter))
		return nil, err
	}
	accounts := []string{}
	for _, j := range jobs {
		if j.account != "" {
			accounts = append(accounts, j.account)
		}
	}
	list, err := json.Marshal(accounts)
	if err != nil {
		return nil, err
	}
	rows, err := t.query(ctx, s.dialect.enter, s.options.Prefix, string(list))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var account string
		if err := rows.Scan(&account); err != nil {
			return nil, err
		}
		if taken == nil {
			taken = map[string]bool{}
		}
		taken[account] = true
	}
	return taken, rows.Err()
}
