package partition

import (
	"fmt"
	"testing"
	"time"

	"github.com/xmpp-push/push"
)

// phones is the state of n accounts with a phone each, which is connected, hibernated and was notified, or away.
func someState(n int) *State {
	s := New(&push.Policy{}, nil)
	var out Out
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	seq := uint64(0)
	for i := 0; i < n; {
		m := &Batch{Origin: Origin{"a", 1}, Number: seq + 1}
		for ; len(m.Events) < 500 && i < n; i++ {
			a := fmt.Sprintf("user%d@example.com", i)
			id := push.SessionID{Account: a, ID: fmt.Sprint("c2s-", i)}
			k := push.Key{Service: "push.example.net", Node: fmt.Sprintf("b2f0c7d4-7f5e-4d6e-9a45-%012d", i)}
			m.Events = append(m.Events, push.SessionOpen{Session: id, JID: a + "/phone"},
				push.PushEnable{Session: id, Key: k, Options: []push.Field{{Var: "FORM_TYPE", Values: []string{"http://jabber.org/protocol/pubsub#publish-options"}}, {Var: "secret", Values: []string{"0123456789abcdef"}}}})
			switch i % 3 {
			case 0:
				m.Events = append(m.Events, push.HibernationStart{Session: id, Stanzas: []push.Stanza{{ID: fmt.Sprint("m", i), Class: push.ClassImportant}}})
			case 1:
				m.Events = append(m.Events, push.SessionClose{Session: id})
			}
		}
		seq++
		s.Batch(seq, now, m, &out)
		out = Out{}
	}
	return s
}

// The state of a million accounts, in 64 partitions: how large it is, and how long it takes to write and to read, which is what a takeover of all of them would
// take of one core.
func BenchmarkSnapshotMillion(b *testing.B) {
	const parts, each = 64, 1_000_000 / 64
	s := someState(each)
	for b.Loop() {
		start := time.Now()
		var data []byte
		for range parts {
			data = sealSnapshot(First, s.snapshot(), 1, 1)
		}
		wrote := time.Since(start)
		start = time.Now()
		for range parts {
			if _, _, err := New(&push.Policy{}, nil).restore(data); err != nil {
				b.Fatal(err)
			}
		}
		read := time.Since(start)
		b.ReportMetric(float64(len(data))/each, "bytes/account")
		b.ReportMetric(wrote.Seconds(), "s-to-write")
		b.ReportMetric(read.Seconds(), "s-to-read")
	}
}

// Deciding an event from the log, reading it included.
func BenchmarkFold(b *testing.B) {
	s := someState(1000)
	var list [][]byte
	for i := range 1000 {
		a := fmt.Sprintf("user%d@example.com", i)
		data, err := (&Batch{Origin: Origin{"b", 1}, Number: 1, Events: []push.Event{push.ArchiveAdded{Account: a, Stanza: push.Stanza{
			ID: fmt.Sprintf("b2f0c7d4-7f5e-4d6e-9a45-%012d", i), From: "romeo@example.net/orchard", To: a, Class: push.ClassImportant,
		}}}}).AppendBinary(nil)
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, data)
	}
	b.ReportAllocs()
	n, seq := 0, uint64(1000)
	for b.Loop() {
		m, err := ReadBatch(list[n%len(list)])
		if err != nil {
			b.Fatal(err)
		}
		n++
		seq++
		m.Number = uint64(n)
		var out Out
		s.Batch(seq, s.Now(), m, &out)
	}
}
