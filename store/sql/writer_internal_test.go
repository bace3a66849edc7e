package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// unreal is a database without one: it answers nothing, takes the time that it is told to, and fails when it is told to.
type unreal struct {
	mu      sync.Mutex
	begun   int
	commits int
	// begin and commit, if not nil, are what happens then; n counts from 1.
	begin, commit func(ctx context.Context, n int) error
}

func (u *unreal) Connect(context.Context) (driver.Conn, error) { return &unrealConn{u, nil}, nil }
func (u *unreal) Driver() driver.Driver                        { return nil }

type unrealConn struct {
	u   *unreal
	ctx context.Context
}

func (c *unrealConn) Prepare(string) (driver.Stmt, error) { return unrealStmt{}, nil }
func (c *unrealConn) Close() error                        { return nil }
func (c *unrealConn) Begin() (driver.Tx, error)           { return nil, errors.New("without a context") }

func (c *unrealConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	c.u.mu.Lock()
	c.u.begun++
	n, f := c.u.begun, c.u.begin
	c.u.mu.Unlock()
	if f != nil {
		if err := f(ctx, n); err != nil {
			return nil, err
		}
	}
	c.ctx = ctx
	return c, nil
}

func (c *unrealConn) Commit() error {
	c.u.mu.Lock()
	c.u.commits++
	n, f := c.u.commits, c.u.commit
	c.u.mu.Unlock()
	if f != nil {
		return f(c.ctx, n)
	}
	return nil
}

func (c *unrealConn) Rollback() error { return nil }

type unrealStmt struct{}

func (unrealStmt) Close() error                               { return nil }
func (unrealStmt) NumInput() int                              { return -1 }
func (unrealStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(0), nil }
func (unrealStmt) Query([]driver.Value) (driver.Rows, error)  { return unrealRows{}, nil }

type unrealRows struct{}

func (unrealRows) Columns() []string         { return nil }
func (unrealRows) Close() error              { return nil }
func (unrealRows) Next([]driver.Value) error { return fmt.Errorf("no rows: %w", errNoRows) }

var errNoRows = errors.New("there is nothing to read")

// leftBehind is what a writer has to do.
type leftBehind struct{ running, queued, stale, active int }

func (w *writer) leftBehind() leftBehind {
	w.mu.Lock()
	defer w.mu.Unlock()
	return leftBehind{w.running, len(w.queue), w.stale, len(w.active)}
}

// newUnreal returns a Store whose database is u.
func newUnreal(t *testing.T, u *unreal, d *Dialect) *Store {
	t.Helper()
	db := sql.OpenDB(u)
	t.Cleanup(func() { _ = db.Close() })
	s := &Store{db: db, dialect: d, tables: strings.NewReplacer()}
	s.writer = writer{s: s, active: map[string]bool{}}
	return s
}

func nothing(context.Context, *tx) error { return nil }

var errLocked = errors.New("database is locked")

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unreal{begin: func(context.Context, int) error { return errLocked }}
		s := newUnreal(t, u, SQLite)
		for name, call := range map[string]func() error{
			"write": func() error { return s.write(context.Background(), "a", nothing) },
			"read":  func() error { return s.retry(context.Background(), func() error { return errLocked }) },
		} {
			begin := time.Now()
			err := call()
			if took := time.Since(begin); !errors.Is(err, errLocked) || took < patience || took > patience+time.Second {
				t.Errorf("%s: %v after %v", name, err, took)
			}
		}
		if u.begun < 100 || u.begun > 2000 {
			t.Errorf("it was tried %d times in %v", u.begun, patience)
		}
		u.begin = func(_ context.Context, n int) error { return errInjectedHere }
		begin := time.Now()
		if err := s.write(context.Background(), "a", nothing); !errors.Is(err, errInjectedHere) || time.Since(begin) > 0 {
			t.Errorf("an error that is not transient: %v after %v", err, time.Since(begin))
		}
	})
}

var errInjectedHere = errors.New("injected")

// TestEndOfTimeWhileWaiting: the error is the context's, and says what it waited for.
func TestEndOfTimeWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newUnreal(t, &unreal{begin: func(context.Context, int) error { return errLocked }}, SQLite)
		for name, call := range map[string]func(ctx context.Context) error{
			"write": func(ctx context.Context) error { return s.write(ctx, "a", nothing) },
			"read":  func(ctx context.Context) error { return s.retry(ctx, func() error { return errLocked }) },
		} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			begin := time.Now()
			err := call(ctx)
			cancel()
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > time.Second+longestWait*2 {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			if name == "read" && !errors.Is(err, errLocked) {
				t.Errorf("%s: it does not say what it waited for: %v", name, err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.write(ctx, "a", func(context.Context, *tx) error { t.Error("the change was made"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("of a context that is done: %v", err)
		}
		if err := s.retry(ctx, func() error { return context.Canceled }); err == nil || strings.Count(err.Error(), "canceled") != 1 {
			t.Errorf("said twice: %v", err)
		}
	})
}

// TestCommitGrace has a commit take longer than its caller.
func TestCommitGrace(t *testing.T) {
	for name, c := range map[string]struct {
		commit  time.Duration
		took    time.Duration // the call
		err     error
		message string
	}{
		"within it":  {3 * time.Second, 3 * time.Second, nil, ""},
		"longer":     {time.Hour, time.Second + commitGrace, context.DeadlineExceeded, "nobody knows"},
		"fails then": {-3 * time.Second, 3 * time.Second, context.DeadlineExceeded, "injected"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var ended time.Duration
			begin := time.Now()
			u := &unreal{commit: func(ctx context.Context, _ int) error {
				select {
				case <-time.After(max(c.commit, -c.commit)):
				case <-ctx.Done():
					ended = time.Since(begin)
					return ctx.Err()
				}
				if c.commit < 0 {
					return errInjectedHere
				}
				return nil
			}}
			s := newUnreal(t, u, SQLite)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			err := s.write(ctx, "a", nothing)
			if took := time.Since(begin); !errors.Is(err, c.err) || took != c.took || err != nil && !strings.Contains(err.Error(), c.message) {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			synctest.Wait()
			if name == "longer" && ended != time.Second+commitGrace {
				t.Errorf("%s: a transaction that nobody waits for went on until %v", name, ended)
			}
			if left := s.writer.leftBehind(); left != (leftBehind{}) {
				t.Errorf("%s: left behind is %+v", name, left)
			}
		})
	}
}

// TestOneOfSeveralLeaves: a transaction goes on as long as one of its callers waits.
func TestOneOfSeveralLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := make(chan struct{})
		u := &unreal{
			begin: func(_ context.Context, n int) error {
				if n == 1 {
					<-first
				}
				return nil
			},
			commit: func(ctx context.Context, n int) error {
				if n == 1 {
					return nil
				}
				select {
				case <-time.After(time.Minute):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		}
		s := newUnreal(t, u, SQLite)
		go func() { _ = s.write(context.Background(), "first", nothing) }()
		synctest.Wait()
		var wg sync.WaitGroup
		var patient, impatient error
		wg.Go(func() { patient = s.write(context.Background(), "a", nothing) })
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			impatient = s.write(ctx, "b", nothing)
		})
		synctest.Wait()
		close(first)
		wg.Wait()
		if patient != nil || !errors.Is(impatient, context.DeadlineExceeded) {
			t.Errorf("who waited got %v, who left %v", patient, impatient)
		}
		if u.commits != 2 {
			t.Errorf("%d transactions, want 2", u.commits)
		}
	})
}

// TestCommitFails: callers are told, and what may have been committed is not done again.
func TestCommitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u := &unreal{commit: func(context.Context, int) error { <-hold; return errInjectedHere }}
		s := newUnreal(t, u, SQLite)
		var wg sync.WaitGroup
		time.AfterFunc(time.Second, func() { close(hold) })
		for i := range 10 {
			wg.Go(func() {
				if err := s.write(context.Background(), fmt.Sprint(i), nothing); !errors.Is(err, errInjectedHere) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if u.commits > 2 {
			t.Errorf("%d transactions were committed for ten changes that were there at once", u.commits)
		}
		if s.commits.Load() != 0 || s.writes.Load() != 0 {
			t.Errorf("counted were %d changes in %d transactions", s.writes.Load(), s.commits.Load())
		}
		u.commit = func(_ context.Context, n int) error {
			if n == u.commits && n%2 == 1 {
				return errLocked
			}
			return nil
		}
		if err := s.write(context.Background(), "a", nothing); err != nil {
			t.Errorf("after a commit that another process was in the way of: %v", err)
		}
	})
}

// TestTransactions counts those that changes which wait at the same time are divided among.
func TestTransactions(t *testing.T) {
	for name, c := range map[string]struct {
		dialect  *Dialect
		accounts []string // of the changes that wait while the first transactions are under way
		want     string   // the accounts of each transaction, in the order in which they began
		begun    int      // of them while the first one had not begun
	}{
		"SQLite: all in one":                {SQLite, []string{"a", "b", "c"}, "[first] [a b c]", 1},
		"SQLite: one account, too":          {SQLite, []string{"a", "a", "b"}, "[first] [a a b]", 1},
		"SQLite: of several accounts alone": {SQLite, []string{"a", "", "b", ""}, "[first] [a b] [] []", 1},
		"SQLite: several accounts first":    {SQLite, []string{"", "a", "b"}, "[first] [] [a b]", 1},
		"PostgreSQL: divided":               {several, []string{"a", "b", "c", "d", "e", "f"}, "[a] [b] [c] [d] [e] [f] [first]", 7},
		"PostgreSQL: one account in turn":   {several, []string{"first", "b", "first"}, "[b] [first] [first first]", 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			hold := make(chan struct{})
			u := &unreal{begin: func(context.Context, int) error { <-hold; return nil }}
			s := newUnreal(t, u, c.dialect)
			var mu sync.Mutex
			var batches [][]string
			byTx := map[*tx]int{}
			change := func(account string) func(context.Context, *tx) error {
				return func(_ context.Context, tx *tx) error {
					mu.Lock()
					defer mu.Unlock()
					i, ok := byTx[tx]
					if !ok {
						i = len(batches)
						byTx[tx] = i
						batches = append(batches, nil)
					}
					batches[i] = append(batches[i], account)
					return nil
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { _ = s.write(context.Background(), "first", change("first")) })
			synctest.Wait()
			for _, a := range c.accounts {
				wg.Go(func() {
					if err := s.write(context.Background(), a, change(a)); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
				synctest.Wait()
			}
			if u.begun != c.begun {
				t.Errorf("%s: %d transactions had begun, want %d", name, u.begun, c.begun)
			}
			close(hold)
			wg.Wait()
			synctest.Wait()
			if c.dialect == several { // at the same time
				slices.SortFunc(batches, slices.Compare)
			}
			got := strings.Trim(fmt.Sprint(batches), "[]")
			if want := strings.Trim(c.want, "[]"); got != want {
				t.Errorf("%s: transactions [%s], want %s", name, got, c.want)
			}
			if s.writes.Load() != uint64(len(c.accounts)+1) || s.commits.Load() != uint64(len(batches)) {
				t.Errorf("%s: counted were %d changes in %d transactions", name, s.writes.Load(), s.commits.Load())
			}
			if left := s.writer.leftBehind(); left != (leftBehind{}) {
				t.Errorf("%s: left behind is %+v", name, left)
			}
		})
	}
}

// TestAccountsOfOneTransaction: when one ends, each account that waited for it goes on, at the same time.
func TestAccountsOfOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unreal{commit: func(context.Context, int) error { time.Sleep(time.Second); return nil }}
		two := *several
		two.writers = 2
		s := newUnreal(t, u, &two)
		begin := time.Now()
		var wg sync.WaitGroup
		write := func(account string) {
			wg.Go(func() {
				if err := s.write(context.Background(), account, nothing); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for _, a := range []string{"x", "y", "p", "q"} { // p and q wait for x or y, and are in one transaction then
			write(a)
		}
		time.Sleep(time.Second + time.Millisecond)
		var alone []*job // as if they had failed together with others
		for _, a := range []string{"p", "q"} {
			alone = append(alone, &job{ctx: context.Background(), account: a, do: nothing, begin: time.Now(), alone: true, queued: true, done: make(chan error, 1)})
		}
		s.writer.mu.Lock()
		s.writer.queue = append(s.writer.queue, alone...)
		s.writer.start()
		s.writer.mu.Unlock()
		wg.Wait()
		for _, j := range alone {
			if err := <-j.done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("it took %v, want three transactions of a second one after another", took)
		}
	})
}

// several is a dialect with several transactions at a time.
var several = &Dialect{enter: "-", writers: 8}

// TestBatchSize: one transaction has not all of a crowd, so that other processes get a turn.
func TestBatchSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u := &unreal{begin: func(context.Context, int) error { <-hold; return nil }}
		s := newUnreal(t, u, SQLite)
		var wg sync.WaitGroup
		const n = 2*batchSize + 1
		for i := range n {
			wg.Go(func() {
				if err := s.write(context.Background(), fmt.Sprint(i), nothing); err != nil {
					t.Error(err)
				}
			})
			if i == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		close(hold)
		wg.Wait()
		if u.commits != 3 {
			t.Errorf("%d changes took %d transactions, want 3", n, u.commits)
		}
	})
}

// TestLeavingTheQueue: those who have left take up no room, even if nothing moves for an hour.
func TestLeavingTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u := &unreal{begin: func(context.Context, int) error { <-hold; return nil }}
		s := newUnreal(t, u, SQLite)
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.write(context.Background(), "first", nothing) })
		synctest.Wait()
		for i := range 1000 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				err := s.write(ctx, fmt.Sprint(i), func(context.Context, *tx) error { t.Error("a change was made whose caller had left"); return nil })
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		made := 0
		for i := range 3 {
			wg.Go(func() {
				if err := s.write(context.Background(), fmt.Sprint("patient ", i), func(context.Context, *tx) error { made++; return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Hour)
		if now := s.writer.leftBehind(); now.queued > 7 || now.stale > now.queued/2 {
			t.Errorf("the queue has %d, of which %d have left", now.queued, now.stale)
		}
		close(hold)
		wg.Wait()
		if made != 3 || u.commits != 2 {
			t.Errorf("%d changes were made in %d transactions, want 3 more than the first in another", made, u.commits)
		}
		err := s.write(context.Background(), "later", nothing)
		if now := s.writer.leftBehind(); err != nil || now.stale != 0 || now.queued != 0 {
			t.Errorf("then: %v, and the queue has %d, of which %d have left", err, now.queued, now.stale)
		}
	})
}

// TestAllLeave: a transaction that has not begun and that nobody waits for any more is ended.
func TestAllLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		u := &unreal{begin: func(ctx context.Context, n int) error {
			if n > 1 {
				return nil
			}
			<-ctx.Done() // a server that does not answer
			return ctx.Err()
		}}
		s := newUnreal(t, u, SQLite)
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i+1)*time.Second)
				defer cancel()
				if err := s.write(ctx, fmt.Sprint(i), nothing); !errors.Is(err, context.DeadlineExceeded) && i == 0 {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("who waited behind a transaction that nobody waited for got through after %v, want 1 s", took)
		}
		if err := s.write(context.Background(), "a", nothing); err != nil {
			t.Error(err)
		}
	})
}

func TestEnded(t *testing.T) {
	late := lateContext{context.Background(), time.Now().Add(-time.Second), nil}
	if err := ended(late); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that does not know yet that its time has come: %v", err)
	}
	late.err = context.Canceled
	if err := ended(late); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that was cancelled: %v", err)
	}
	late.at, late.err = time.Now().Add(time.Hour), nil
	if err := ended(late); err != nil {
		t.Errorf("a context that has time: %v", err)
	}
	if err := ended(context.Background()); err != nil {
		t.Errorf("a context without an end: %v", err)
	}
}

type lateContext struct {
	context.Context
	at  time.Time
	err error
}

func (c lateContext) Deadline() (time.Time, bool) { return c.at, true }
func (c lateContext) Err() error                  { return c.err }

// TestLeavingBetweenTries: who leaves while a change waits for its next try leaves at once, and nothing behind.
func TestLeavingBetweenTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unreal{}
		s := newUnreal(t, u, SQLite)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		tries := 0
		begin := time.Now()
		err := s.write(ctx, "a", func(context.Context, *tx) error { tries++; return errLocked })
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took != time.Second || tries < 10 {
			t.Errorf("%v after %v and %d tries", err, took, tries)
		}
		time.Sleep(time.Second)
		if left := s.writer.leftBehind(); left != (leftBehind{}) {
			t.Errorf("left behind is %+v", left)
		}

		// One that is back in the queue, behind a transaction that hangs.
		hold := make(chan struct{})
		var wg sync.WaitGroup
		first := true
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			err := s.write(ctx, "a", func(context.Context, *tx) error {
				if first {
					first = false
					return errLocked
				}
				t.Error("the change was made, and its caller had left")
				return nil
			})
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 63*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
		synctest.Wait()
		u.mu.Lock()
		u.begin = func(context.Context, int) error { <-hold; return nil }
		u.mu.Unlock()
		wg.Go(func() {
			if err := s.write(context.Background(), "b", nothing); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(2 * time.Minute)
		close(hold)
		wg.Wait()
		synctest.Wait()
		if left := s.writer.leftBehind(); left != (leftBehind{}) {
			t.Errorf("left behind is %+v", left)
		}
	})
}

// TestEndOfTimeWhileChanging: what went wrong is said, although the caller's time was over first.
func TestEndOfTimeWhileChanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newUnreal(t, &unreal{}, SQLite)
		for _, cause := range []error{errLocked, errInjectedHere} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			begin := time.Now()
			err := s.write(ctx, "a", func(context.Context, *tx) error { time.Sleep(2 * time.Second); return cause })
			cancel()
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cause) || took != 2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := s.write(ctx, "a", func(context.Context, *tx) error { time.Sleep(2 * time.Second); return context.DeadlineExceeded })
		if err == nil || strings.Count(err.Error(), "deadline") != 1 {
			t.Errorf("said twice: %v", err)
		}
	})
}
