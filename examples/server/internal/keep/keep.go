// Package keep keeps what a server has accepted, in SQLite: in a file, where it survives the process being killed and the power going off, or in
// memory.
//
// Writing never waits. What is written is queued, and one goroutine commits whatever has gathered in one transaction, so that a thousand messages cost
// one flush of the disk as well as one does. Whoever makes a promise that rests on it (an acknowledgement, a reply, a notification) waits for that with
// Settle or After.
package keep

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/xmpp-push/push/internal/filelock"
)

// maxBacklog is how many writes may wait before Room makes those wait who bring more.
const maxBacklog = 20_000

// ErrClosed: the Keep was closed before the write was committed.
var ErrClosed = errors.New("keep: closed")

// retryAfter is how long to wait after a commit that failed, most likely because the disk is full.
const retryAfter = time.Second

// Keep is a database with one writer. Its methods may be called from any goroutine.
type Keep struct {
	// Durable: it is in a file.
	Durable bool

	log  *slog.Logger
	lock *os.File // nil: in memory
	db   *sql.DB
	conn *sql.Conn     // the writer's; in memory, the only one
	turn chan struct{} // holds a token while conn is free
	// prepared are the writer's statements.
	prepared map[string]*sql.Stmt

	// whole is held for reading while writes are made that must be committed together.
	whole sync.RWMutex

	mu      sync.Mutex
	queue   []op
	busy    bool // what was taken out of the queue is not yet committed
	closed  bool
	drained *sync.Cond // the queue was taken, or the Keep closed
	wake    chan struct{}
	stop    chan struct{}
	ended   chan struct{}
}

// op is a write, or something to do once all before it are committed.
type op struct {
	query string
	args  []any
	then  func(error)
}

// ErrInUse: another process has the folder open. Two servers would each go on with the sessions of the other, and end them.
var ErrInUse = errors.New("another server is running with this folder; end that one, or give each a folder of its own")

// patience is how long Open waits for a process that is about to end.
const patience = 2 * time.Second

// lockFile keeps others from a folder until this process ends, or the file is closed.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ok, err := filelock.Try(f)
		if err == nil && ok {
			return f, nil
		}
		if err == nil && time.Now().After(until) {
			err = fmt.Errorf("%s: %w", filepath.Dir(path), ErrInUse)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
}

// ErrNewer: the file was written by a newer version of the program.
var ErrNewer = errors.New("the database was written by a newer version of this program")

// Open opens the file name in a folder, which it makes if need be, for this process alone. Without a folder it is in memory. The schema is what was ever done to make the tables as they
// are: to change them, append a step, which old files then get when they are opened. The first step must do no harm to tables that are there.
func Open(dir, name string, schema []string, log *slog.Logger) (_ *Keep, err error) {
	k := &Keep{
		Durable: dir != "", log: log, turn: make(chan struct{}, 1), prepared: make(map[string]*sql.Stmt),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	defer func() {
		if err != nil && k.lock != nil {
			k.lock.Close()
		}
	}()
	source := "file::memory:"
	if k.Durable {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if k.lock, err = lockFile(path + ".lock"); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // for the owner's eyes only
		if err != nil {
			return nil, err
		}
		f.Close()
		pragmas := url.Values{"_pragma": {"busy_timeout(1000)", "journal_mode(WAL)", "synchronous(FULL)"}}
		source = "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas.Encode()
	}
	k.drained = sync.NewCond(&k.mu)
	if k.db, err = sql.Open("sqlite", source); err != nil {
		return nil, err
	}
	k.db.SetMaxIdleConns(4)
	if k.conn, err = k.db.Conn(context.Background()); err == nil {
		err = k.migrate(schema)
	}
	if err != nil {
		k.db.Close()
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	k.turn <- struct{}{}
	go k.write()
	return k, nil
}

// migrate takes the steps of the schema that the file has not had.
func (k *Keep) migrate(schema []string) error {
	ctx := context.Background()
	var had int
	if err := k.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&had); err != nil {
		return err
	}
	if had > len(schema) {
		return ErrNewer
	}
	for ; had < len(schema); had++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT", schema[had], had+1)
		if _, err := k.conn.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("step %d: %w", had+1, err)
		}
	}
	return nil
}

// Do queues a write.
func (k *Keep) Do(query string, args ...any) { k.put(op{query: query, args: args}) }

// Whole lets what is written until the function that it returns is called be committed in one piece, with all that others write meanwhile. Until
// then the caller must not call Settle or Whole, nor wait for a lock that somebody may hold while they call Whole.
func (k *Keep) Whole() (end func()) {
	k.whole.RLock()
	return k.whole.RUnlock
}

// After calls then once everything that was written before is committed, in the order of the calls; at once if it is. The error is that of
// Close, before which no write fails for good. Then must not block for long, nor call Settle.
func (k *Keep) After(then func(error)) {
	k.mu.Lock()
	if len(k.queue) == 0 && !k.busy && !k.closed {
		k.mu.Unlock()
		then(nil)
		return
	}
	k.mu.Unlock()
	k.put(op{then: then})
}

// Settle waits until everything that was written before is committed.
func (k *Keep) Settle() error {
	done := make(chan error, 1)
	k.After(func(err error) { done <- err })
	return <-done
}

// Room waits while so much waits to be committed that no more should be accepted, as when the disk is full. Whoever reads what others send calls it before they
// read on, so that those others wait.
func (k *Keep) Room() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.queue) > maxBacklog && !k.closed {
		k.drained.Wait()
	}
}

func (k *Keep) put(o op) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		if o.then != nil {
			o.then(ErrClosed)
		}
		return
	}
	k.queue = append(k.queue, o)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// write commits what gathers until the Keep is closed.
func (k *Keep) write() {
	defer close(k.ended)
	var batch []op
	for {
		select {
		case <-k.wake:
		case <-k.stop:
		}
		k.whole.Lock() // not between two writes that belong together
		k.mu.Lock()
		batch, k.queue = k.queue, batch[:0]
		k.drained.Broadcast()
		k.busy = len(batch) > 0
		closed := k.closed
		k.mu.Unlock()
		k.whole.Unlock()
		err := k.commit(batch)
		for err != nil && !closed {
			k.log.Error("cannot keep what was accepted; nothing is acknowledged until that works again", "err", err)
			select {
			case <-time.After(retryAfter):
			case <-k.stop:
				closed = true
			}
			err = k.commit(batch)
		}
		for _, o := range batch {
			if o.then != nil {
				o.then(err)
			}
		}
		clear(batch)
		k.mu.Lock()
		k.busy = false
		k.mu.Unlock()
		if closed {
			return
		}
	}
}

// commit commits a batch, or none of it.
func (k *Keep) commit(batch []op) (err error) {
	writes := false
	for i := range batch {
		writes = writes || batch[i].query != ""
	}
	if !writes {
		return nil
	}
	<-k.turn
	defer func() { k.turn <- struct{}{} }()
	ctx := context.Background()
	if _, err := k.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			k.conn.ExecContext(ctx, "ROLLBACK")
		}
	}()
	for i := range batch {
		o := &batch[i]
		if o.query == "" {
			continue
		}
		st := k.prepared[o.query]
		if st == nil {
			if st, err = k.conn.PrepareContext(ctx, o.query); err != nil {
				return fmt.Errorf("%s: %w", o.query, err)
			}
			k.prepared[o.query] = st
		}
		if _, err := st.ExecContext(ctx, o.args...); err != nil {
			return fmt.Errorf("%s: %w", o.query, err)
		}
	}
	_, err = k.conn.ExecContext(ctx, "COMMIT")
	return err
}

// Read calls row for each row of a query's result, with what sql.Rows.Scan needs. It sees what is committed: call Settle first for what was just written.
func (k *Keep) Read(row func(scan func(...any) error) error, query string, args ...any) error {
	var rows *sql.Rows
	var err error
	if k.Durable {
		rows, err = k.db.Query(query, args...)
	} else {
		<-k.turn
		defer func() { k.turn <- struct{}{} }()
		rows, err = k.conn.QueryContext(context.Background(), query, args...)
	}
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Close commits what is queued and closes the database.
func (k *Keep) Close() error {
	k.mu.Lock()
	closed := k.closed
	k.closed = true
	k.drained.Broadcast()
	k.mu.Unlock()
	if closed {
		return nil
	}
	close(k.stop)
	<-k.ended
	for _, st := range k.prepared {
		st.Close()
	}
	err := errors.Join(k.conn.Close(), k.db.Close())
	if k.lock != nil {
		err = errors.Join(err, k.lock.Close())
	}
	return err
}
