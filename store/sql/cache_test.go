package sqlstore

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xmpp-push/push"
)

func cached(account string) []push.Registration {
	return []push.Registration{{Account: account, Key: push.Key{Service: "push.example.net", Node: "n1"},
		Options: []push.Field{{Var: "FORM_TYPE", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}}, {Var: "secret", Values: []string{"3f2a9c0d7be14e55"}}}}}
}

func (c *cache) len() (n int) {
	for i := range c.shards {
		n += len(c.shards[i].entries)
	}
	return n
}

func TestCacheAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(100, time.Minute)
		ticket := c.ticket("a")
		c.put("a", nil, time.Now(), ticket)
		time.Sleep(time.Minute)
		if _, ok := c.get("a"); !ok {
			t.Error("it is gone before its time")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := c.get("a"); ok {
			t.Error("it is there after its time")
		}
		forever := newCache(100, -1)
		forever.put("a", nil, time.Now(), 0)
		time.Sleep(10000 * time.Hour)
		if _, ok := forever.get("a"); !ok {
			t.Error("without a bound it is gone all the same")
		}
	})
}

func TestCacheAgeCountsFromBeforeTheQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(100, time.Minute)
		ticket := c.ticket("a")
		read := time.Now()
		time.Sleep(30 * time.Second) // a slow database
		c.put("a", nil, read, ticket)
		time.Sleep(31 * time.Second)
		if _, ok := c.get("a"); ok {
			t.Error("the time of the query was not counted")
		}
	})
}

func TestCacheDoesNotPutWhatWasReadBeforeAChange(t *testing.T) {
	for name, change := range map[string]func(c *cache){
		"forget":    func(c *cache) { c.forget("a") },
		"forgetAll": func(c *cache) { c.forgetAll() },
	} {
		c := newCache(100, -1)
		ticket := c.ticket("a")
		change(c)
		c.put("a", cached("a"), time.Now(), ticket)
		if _, ok := c.get("a"); ok {
			t.Errorf("%s: what was read before is there after", name)
		}
	}
}

func TestCacheBound(t *testing.T) {
	const size = 160
	c := newCache(size, -1)
	put := func(account string) {
		if _, ok := c.get(account); !ok {
			c.put(account, nil, time.Now(), c.ticket(account))
		}
	}
	for i := range 20 * size {
		put("the one that is used")
		put(fmt.Sprint(i))
	}
	if c.len() > size {
		t.Errorf("%d accounts are cached, at most %d may be", c.len(), size)
	}
	if c.len() < size*3/4 {
		t.Errorf("only %d of %d accounts are cached", c.len(), size)
	}
	if _, ok := c.get("the one that is used"); !ok {
		t.Error("what is used all the time is gone")
	}
	if _, ok := c.get("0"); ok {
		t.Error("what was not used for longest is still there")
	}
	c.forgetAll()
	if c.len() != 0 {
		t.Error("forgetAll left some")
	}
	if none := newCache(-1, -1); none != nil {
		t.Error("a negative size is no cache")
	}
}

func TestCacheTogether(t *testing.T) {
	c := newCache(32, time.Minute)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				account := fmt.Sprint((g + i) % 50)
				switch rs, ok := c.get(account); {
				case !ok:
					c.put(account, cached(account), time.Now(), c.ticket(account))
				case len(rs) != 1 || rs[0].Account != account || rs[0].Options[1].Values[0] != "3f2a9c0d7be14e55":
					t.Errorf("got %+v for %s", rs, account)
				default:
					rs[0].Options[1].Values[0] = "spoiled"
				}
				if i%7 == 0 {
					c.forget(account)
				}
				if i%500 == 0 {
					c.forgetAll()
				}
			}
		})
	}
	wg.Wait()
}

func TestCacheAllocations(t *testing.T) {
	c := newCache(100, time.Minute)
	c.put("nobody", nil, time.Now(), 0)
	c.put("somebody", cached("somebody"), time.Now(), 0)
	for account, want := range map[string]float64{"nobody": 0, "somebody": 3} {
		if got := testing.AllocsPerRun(100, func() { c.get(account) }); got != want {
			t.Errorf("%s: %v allocations, want %v", account, got, want)
		}
	}
}

func BenchmarkCache(b *testing.B) {
	for _, n := range []int{0, 1} {
		b.Run(fmt.Sprintf("registrations=%d", n), func(b *testing.B) {
			const size = 20_000
			c := newCache(2*size, time.Minute) // a shard may have more than its part
			names := make([]string, size)
			for i := range names {
				names[i] = fmt.Sprintf("user%07d@example.com", i)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for _, name := range names {
				c.put(name, cached(name)[:n], time.Now(), c.ticket(name))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if rs, ok := c.get(names[i*7919%size]); !ok || len(rs) != n {
					b.Fatal(ok, len(rs))
				}
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/size, "B/account")
			runtime.KeepAlive(c)
		})
	}
}

// TestCachePutAgain: an account that is put again takes up no more room.
func TestCachePutAgain(t *testing.T) {
	c := newCache(16*4, -1)
	for i := range 1000 {
		account := fmt.Sprint(i % 3)
		c.put(account, cached(account), time.Now(), c.ticket(account))
	}
	n := 0
	for i := range c.shards {
		for e := c.shards[i].ring.next; e != &c.shards[i].ring; e = e.next {
			n++
		}
	}
	if n != 3 || c.len() != 3 {
		t.Errorf("%d entries of %d accounts, want 3", n, c.len())
	}
}
