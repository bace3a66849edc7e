package keep

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var schema = []string{`CREATE TABLE IF NOT EXISTS pair (a INTEGER PRIMARY KEY, b INTEGER)`}

func open(t *testing.T, dir string) *Keep {
	t.Helper()
	k, err := Open(dir, "test.db", schema, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func count(t *testing.T, k *Keep, where string) (n int) {
	t.Helper()
	if err := k.Read(func(scan func(...any) error) error { return scan(&n) }, "SELECT count(*) FROM pair WHERE "+where); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInUse opens a folder that is open: the second one is refused before it can change anything, and not any more when the first is closed, or could not be opened.
func TestInUse(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	synctest.Test(t, func(t *testing.T) { // it waits a while
		if _, err := Open(dir, "test.db", schema, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
			t.Errorf("opened twice: %v", err)
		}
	})
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "test.db", append(slices.Clone(schema), "no SQL"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("opened with a bad schema")
	}
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestKept writes from many goroutines, and reads it after Settle and after the file was opened again.
func TestKept(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 100 {
				k.Do("INSERT INTO pair VALUES (?,?)", 1000*g+i, g)
			}
			if err := k.Settle(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := count(t, k, "1"); n != 800 {
		t.Errorf("%d rows after Settle", n)
	}
	k.Do("DELETE FROM pair WHERE b=?", 7)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Settle(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	k = open(t, dir)
	defer k.Close()
	if n := count(t, k, "1"); n != 700 {
		t.Errorf("%d rows in the file", n)
	}
}

// TestWhole looks, from another connection, for one of two writes without the other.
func TestWhole(t *testing.T) {
	k := open(t, t.TempDir())
	defer k.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			end := k.Whole()
			k.Do("INSERT INTO pair VALUES (?,1)", i)
			time.Sleep(10 * time.Microsecond) // for the writer, should it not wait
			k.Do("INSERT INTO pair VALUES (?,2)", 1000+i)
			end()
		}
	}()
	for {
		if n := count(t, k, "1"); n%2 != 0 {
			t.Fatalf("%d rows: half of a pair", n)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestOrder: what is to be done afterwards is done in its order, and not before the write.
func TestOrder(t *testing.T) {
	k := open(t, t.TempDir())
	defer k.Close()
	var got []int
	for i := range 200 {
		k.Do("INSERT INTO pair VALUES (?,0)", i)
		k.After(func(err error) {
			if err != nil {
				t.Error(err)
			}
			got = append(got, i) // by the one writer
		})
	}
	if err := k.Settle(); err != nil {
		t.Fatal(err)
	}
	if len(got) != 200 {
		t.Fatalf("%d of 200", len(got))
	}
	for i, g := range got {
		if i != g {
			t.Fatalf("%d before %d", g, i)
		}
	}
}

// TestFailure: nothing is promised while writing fails, and all is kept once it works again.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := open(t, "")
		k.Do("INSERT INTO later VALUES (1)")
		k.Do("INSERT INTO pair VALUES (1,1)")
		settled := false
		go func() { settled = k.Settle() == nil }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if settled {
			t.Error("a write that fails was promised")
		}
		<-k.turn
		_, err := k.conn.ExecContext(t.Context(), "CREATE TABLE later (a INTEGER)")
		k.turn <- struct{}{}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if !settled || count(t, k, "1") != 1 {
			t.Error("not kept once it works again")
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestRoom: while nothing can be committed, those who bring more wait, and no longer than that.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := open(t, "")
		<-k.turn // the disk stands still
		for i := range maxBacklog + 10 {
			k.Do("INSERT INTO pair VALUES (?,0)", i)
			k.Do("INSERT INTO pair VALUES (?,0)", -i-1)
		}
		entered := false
		go func() { k.Room(); entered = true }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if entered {
			t.Error("there was room")
		}
		k.turn <- struct{}{}
		synctest.Wait()
		if !entered {
			t.Error("there is still no room")
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestMigration opens files of older versions, and refuses that of a newer one.
func TestMigration(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	k.Do("INSERT INTO pair VALUES (1,2)")
	k.Do("PRAGMA user_version = 0") // as before there were steps
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	newer := append(schema[:1:1], "ALTER TABLE pair ADD COLUMN c INTEGER NOT NULL DEFAULT 3")
	for range 2 {
		k, err := Open(dir, "test.db", newer, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if n := count(t, k, "a = 1 AND b = 2 AND c = 3"); n != 1 {
			t.Errorf("%d rows", n)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, "test.db", schema, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrNewer) {
		t.Errorf("an older program: %v", err)
	}
}
