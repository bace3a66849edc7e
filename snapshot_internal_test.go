package push

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// contradiction makes an account of two registrations and two sessions in which something waits and something is in flight, for a test to break it.
func contradiction() *Account {
	a := OpenAccount("juliet@example.com", nil)
	for _, node := range []string{"n1", "n2"} {
		a.regs = append(a.regs, &registration{Registration: Registration{Account: a.name, Key: Key{Service: "push.example.net", Node: node}}, pace: pacer{stub: true}})
	}
	a.key = hashKey{1, 2}
	a.claims, a.touched = 2, 100
	a.sessions = []*session{{id: "s1", bound: a.regs[0], claim: &a.regs[0].Key, since: 1}, {id: "s2", claim: &a.regs[1].Key, since: 2}}
	r := a.regs[0]
	r.unread = 2
	r.mem.ring = []remembered{{hash: 8 | counts, at: 1}, {hash: 16, at: 1}}
	p := part{stanzas: []noted{{hash: 8 | 1, event: 1}}, nameless: 1}
	p.count[ClassImportant], p.at[ClassImportant] = 2, 50
	r.pace.waiting = []part{p}
	f := part{from: a.sessions[0], over: true, wakes: true, stanzas: []noted{{hash: 16, event: 1}}}
	f.count[ClassPlain], f.at[ClassPlain] = 1, 50
	r.pace.flight, r.pace.inFlight, r.pace.due = []part{f, {from: a.sessions[0], wakes: true, at: [3]instant{50}}}, true, 50
	return a
}

// A snapshot whose bytes are sound and that says what cannot be is refused, so that the rest of the code can rely on what it does.
func TestSnapshotOfContradictions(t *testing.T) {
	data, err := contradiction().MarshalBinary()
	require.NoError(t, err)
	_, err = RestoreAccount("juliet@example.com", nil, data)
	require.NoError(t, err, "without a contradiction")
	_, err = RestoreAccount("romeo@example.com", nil, data)
	require.ErrorIs(t, err, ErrSnapshot)
	for name, damage := range map[string]func(a *Account){
		"a session without an ID":                func(a *Account) { a.sessions[1].id = "" },
		"two sessions of one ID":                 func(a *Account) { a.sessions[1].id = "s1" },
		"a claim of the future":                  func(a *Account) { a.sessions[1].since = 3 },
		"two sessions bound to one":              func(a *Account) { a.sessions[1].bound, a.sessions[1].claim = a.regs[0], &a.regs[0].Key },
		"one stanza twice":                       func(a *Account) { a.regs[0].mem.ring[1].hash = 8 },
		"a stanza with flags":                    func(a *Account) { a.regs[0].mem.ring[1].hash = 16 | 2 },
		"two parts of one session":               func(a *Account) { a.regs[0].pace.flight[0].over = false },
		"two parts of no session":                func(a *Account) { a.regs[0].pace.waiting = append(a.regs[0].pace.waiting, a.regs[0].pace.waiting[0]) },
		"more unread than counted":               func(a *Account) { a.regs[0].unread = 1 },
		"what waits is not due":                  func(a *Account) { a.regs[0].pace.due = 0 },
		"hashes without a key":                   func(a *Account) { a.key = hashKey{} },
		"a part of nothing":                      func(a *Account) { a.regs[0].pace.flight[1].wakes, a.regs[0].pace.flight[1].at = false, [3]instant{} },
		"a stanza of no class":                   func(a *Account) { a.regs[0].pace.waiting[0].stanzas[0].hash = 8 | 3 },
		"more stanzas than counted":              func(a *Account) { a.regs[0].pace.flight[0].count[ClassPlain] = 0 },
		"a time of none":                         func(a *Account) { a.regs[0].pace.waiting[0].at[ClassUrgent] = 50 },
		"some of no time":                        func(a *Account) { a.regs[0].pace.waiting[0].count[ClassPlain] = 1 },
		"more without an ID than there is":       func(a *Account) { a.regs[0].pace.waiting[0].nameless, a.regs[0].unread = 3, 9 },
		"keys out of order":                      func(a *Account) { a.regs[0], a.regs[1] = a.regs[1], a.regs[0] },
		"one key twice":                          func(a *Account) { a.regs[1].Key = a.regs[0].Key },
		"a stanza that was notified and is none": func(a *Account) { a.regs[0].mem.ring[1].hash = 0 },
		"two parts of one session, one over": func(a *Account) {
			f := a.regs[0].pace.flight
			a.regs[0].pace.flight = []part{f[1], f[0], f[1]}
		},
	} {
		a := contradiction()
		damage(a)
		data, err := a.MarshalBinary()
		require.NoError(t, err)
		_, err = RestoreAccount("juliet@example.com", nil, data)
		require.ErrorIs(t, err, ErrSnapshot, name)
	}
	for name, change := range map[string]func(a *Account){
		"a part that is over after one that is not": func(a *Account) { slices.Reverse(a.regs[0].pace.flight) },
		"gone, as an earlier release wrote it":      func(a *Account) { a.gone = &[]Drop{{Key: Key{Service: "push.example.org"}}} },
	} {
		a := contradiction()
		change(a)
		data, err := a.MarshalBinary()
		require.NoError(t, err)
		b, err := RestoreAccount("juliet@example.com", nil, data)
		require.NoError(t, err, name)
		assert.Equal(t, a.gone, b.gone)
	}
	// Earlier releases kept the text of what only wakes.
	a := contradiction()
	a.regs[0].pace.flight[0].text = &text{at: 50, hash: 16, sender: "romeo@example.net", body: "sealed"}
	data, err = a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount("juliet@example.com", nil, data)
	require.NoError(t, err)
	assert.Equal(t, &text{at: 50, hash: 16, sender: "romeo@example.net"}, b.regs[0].pace.flight[0].text)

	// Each of these needs the key by itself.
	only := func(keep func(a *Account)) error {
		a := OpenAccount("juliet@example.com", nil)
		a.regs = contradiction().regs[1:]
		keep(a)
		data, err := a.MarshalBinary()
		require.NoError(t, err)
		_, err = RestoreAccount("juliet@example.com", nil, data)
		return err
	}
	require.NoError(t, only(func(*Account) {}))
	require.ErrorIs(t, only(func(a *Account) { a.regs[0].mem.ring = []remembered{{hash: 8, at: 1}} }), ErrSnapshot)
	require.ErrorIs(t, only(func(a *Account) { a.chats = &chats{heard: []heard{{hash: 8, chat: 1}}} }), ErrSnapshot)
	require.ErrorIs(t, only(func(a *Account) {
		a.regs[0].pace.waiting, a.regs[0].pace.due = []part{{count: [3]int32{1}, at: [3]instant{50}, stanzas: []noted{{hash: 8}}}}, 50
	}), ErrSnapshot)
}

// sealedSections is a snapshot of sections with the right checksum.
func sealedSections(sections ...[]byte) []byte {
	var body []byte
	for _, s := range sections {
		body = append(body, s...)
	}
	data := binary.LittleEndian.AppendUint32([]byte{snapshotVersion}, crc32.Checksum(body, castagnoli))
	return append(data, body...)
}

func sectionOf(tag uint64, write func(e *snapshotWriter)) []byte {
	var content, e snapshotWriter
	write(&content)
	e.uint(tag)
	e.bytes(content.b)
	return e.b
}

// Sections that are out of order, too long, too short or with what no release writes are refused, each with a reason.
func TestSnapshotOfBadSections(t *testing.T) {
	a := contradiction()
	head := sectionOf(2, func(e *snapshotWriter) { writeHead(e, a) })
	hash := sectionOf(4, func(e *snapshotWriter) { writeHashKey(e, a) })
	keys := sectionOf(6, func(e *snapshotWriter) { writeKeys(e, a) })
	session := func(flags byte, more func(e *snapshotWriter)) []byte {
		return sectionOf(8, func(e *snapshotWriter) {
			e.string("s1")
			e.string("")
			e.b = append(e.b, flags)
			more(e)
		})
	}
	end := func(e *snapshotWriter) {
		e.uint(1)
		e.b = append(e.b, 0)
	}
	ends := func(first uint64) func(e *snapshotWriter) {
		return func(e *snapshotWriter) {
			e.uint(first)
			end(e)
		}
	}
	restore := func(sections ...[]byte) error {
		_, err := RestoreAccount(a.name, nil, sealedSections(sections...))
		return err
	}
	require.NoError(t, restore(head, hash, keys, session(0, end)))
	require.NoError(t, restore(head, hash, keys, session(claimsBound, ends(1))))
	require.NoError(t, restore(head, hash, keys, session(claimsUnknown, func(e *snapshotWriter) {
		e.key(Key{Service: "a.example"})
		end(e)
	})))
	require.NoError(t, restore(head, sectionOf(99, func(e *snapshotWriter) { e.uint(7) })), "a newer release's, which may be left out")
	require.NoError(t, restore(head, sectionOf(3, func(*snapshotWriter) {}), hash), "in its place, too")
	// state is what is known of the first registration, with one part that waits.
	state := func(memory, waits func(e *snapshotWriter)) []byte {
		return sectionOf(10, func(e *snapshotWriter) {
			e.b = append(e.b, 0, 0, 0, 0)
			memory(e)
			e.b = append(e.b, 0, 0, 3, 0, 0, 0, 1) // due at the base
			waits(e)
		})
	}
	noMemory := func(e *snapshotWriter) { e.uint(0) }
	// wake is a part with a wake-up, or with a stanza.
	wake := func(flags byte, stanza ...byte) func(e *snapshotWriter) {
		return func(e *snapshotWriter) {
			count := byte(len(stanza) / 10)
			e.b = append(e.b, 0, flags, 0, count, 3, 0, 0, 0, 0, 0, count)
			e.b = append(e.b, stanza...)
		}
	}
	stanza := func(flags, hash byte) []byte { return []byte{flags | 8, hash, 0, 0, 0, 0, 0, 0, 0, 2} }
	require.NoError(t, restore(head, hash, keys, state(noMemory, wake(2))))
	require.NoError(t, restore(head, hash, keys, state(noMemory, wake(0, stanza(0, 8)...))))
	dropped := func(reason string) []byte {
		return sectionOf(19, func(e *snapshotWriter) {
			e.string(reason)
			e.b = append(e.b, 1, 2, 1, 7)
		})
	}
	gone := sectionOf(12, func(e *snapshotWriter) { e.key(Key{Service: "push.example.net", Node: "gone"}) })
	require.NoError(t, restore(head, gone, dropped(ReasonRevoked.String())))
	late, err := RestoreAccount(a.name, nil, sealedSections(head, gone, dropped("a reason of the future")))
	require.NoError(t, err)
	assert.Equal(t, []Drop{{Key: Key{Service: "push.example.net", Node: "gone"}, Class: ClassImportant, Count: 2, Reason: ReasonRemoved, Events: []uint64{7}}}, *late.gone)
	for name, sections := range map[string][][]byte{
		"an even section in its place": {head, sectionOf(14, func(*snapshotWriter) {})},
		"drops of what is not gone":    {head, dropped(ReasonRevoked.String())},
		"a drop without a reason":      {head, gone, dropped(ReasonNone.String())},
		"what was notified never": {head, hash, keys, state(func(e *snapshotWriter) {
			e.uint(1)
			e.fixed(8)
			e.int(math.MinInt64)
		}, wake(2))},
		"an unknown flag of a part":               {head, hash, keys, state(noMemory, wake(8|2))},
		"a stanza whose flags are not its hash's": {head, hash, keys, state(noMemory, wake(0, stanza(0, 9)...))},
		"nothing":                              {},
		"the same section twice":               {head, hash, hash},
		"sections out of order":                {head, keys, hash},
		"an unknown section between":           {head, sectionOf(5000, func(*snapshotWriter) {})},
		"an unknown section in the middle":     {head, sectionOf(3, func(*snapshotWriter) {}), sectionOf(100, func(*snapshotWriter) {})},
		"bytes too many":                       {head, sectionOf(4, func(e *snapshotWriter) { writeHashKey(e, a); e.b = append(e.b, 0) })},
		"bytes too few":                        {head, sectionOf(4, func(e *snapshotWriter) { e.fixed(1) })},
		"an unknown flag":                      {head, hash, keys, session(128, end)},
		"a registration that is not there":     {head, hash, keys, session(claimsBound, ends(2))},
		"a time of none":                       {head, hash, keys, session(0, func(e *snapshotWriter) { e.uint(1); e.instant(0); e.uint(1) })},
		"a stanza that is heard and has none":  {head, hash, keys, sectionOf(17, func(e *snapshotWriter) { e.fixed(0); e.uint(1); e.uint(1); e.uint(1); e.uint(1) })},
		"a chat's hash that is too large":      {head, hash, keys, sectionOf(17, func(e *snapshotWriter) { e.fixed(8); e.uint(1 << 32); e.uint(1); e.uint(1); e.uint(1) })},
		"a use of a session that is not there": {head, hash, keys, sectionOf(15, func(e *snapshotWriter) { e.uint(0); e.uint(1); e.uint(1); e.b = append(e.b, 0) })},
		"what no registration was told":        {head, hash, keys, sectionOf(15, func(e *snapshotWriter) { e.uint(2<<1 | 1); e.uint(1); e.b = append(e.b, 0) })},
		"a use of no session, and no more":     {head, hash, keys, sectionOf(15, func(e *snapshotWriter) { e.uint(0) })},
		"no registration told, and no more":    {head, hash, keys, sectionOf(15, func(e *snapshotWriter) { e.uint(2<<1 | 1) })},
		"a number without an end":              {head, []byte{4, 1, 0x80}, keys},
		"a length without an end":              {head, []byte{4, 0x80}},
		"a length of more than there is":       {head, []byte{4, 9, 1}},
		"a base without an end":                {sectionOf(2, func(e *snapshotWriter) { e.string(a.name); e.b = append(e.b, 0x80) })},
	} {
		err := restore(sections...)
		require.ErrorIs(t, err, ErrSnapshot, name)
		require.Greater(t, len(err.Error()), len(ErrSnapshot.Error())+5, name)
	}
	newer := sealedSections(head)
	newer[0]++
	_, err = RestoreAccount(a.name, nil, newer)
	require.ErrorContains(t, err, fmt.Sprint("version ", snapshotVersion+1))
	_, err = RestoreAccount(a.name, nil, nil)
	require.ErrorIs(t, err, ErrSnapshot)
}

// What was notified chat by chat is read from snapshots of before it was made smaller.
func TestSnapshotOfWideChats(t *testing.T) {
	a := NewAccount("juliet@example.com", nil, []Registration{{Account: "juliet@example.com", Key: Key{Service: "push.example.net"}}})
	now := time.Unix(1_800_000_000, 0)
	var d Decision
	st := Stanza{ID: "m1", Kind: KindMessage, Class: ClassImportant, Content: ContentText, Type: MessageChat, From: "romeo@example.net/x", To: a.name, MessageID: "id1"}
	a.Handle(Offline{a.name, st}, Facts{Now: now}, &d)
	require.True(t, d.Notifies())
	n := a.chats.heard[0]
	a.chats = nil
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	body := append(data[5:len(data):len(data)], sectionOf(13, func(e *snapshotWriter) {
		e.fixed(n.hash)
		e.fixed(a.hash("romeo@example.net"))
		for _, u := range []uint32{n.message, n.room, n.sender, uint32(now.Unix())} {
			e.uint(uint64(u))
		}
	})...)
	b, err := RestoreAccount(a.name, nil, sealedSections(body))
	require.NoError(t, err)
	assert.Equal(t, []heard{n}, b.chats.heard)
	b.Load(a.Registrations(), now, &d.Effects)
	b.Handle(Displayed{Account: a.name, Chat: "romeo@example.net", UpTo: "id1"}, Facts{Now: now}, &d)
	assert.Equal(t, ReasonNone, d.Reason)
	assert.Len(t, d.Drops, 1)
	_, err = RestoreAccount(a.name, nil, sealedSections(data[5:], sectionOf(13, func(e *snapshotWriter) {
		e.fixed(0)
		e.fixed(0)
		e.uint(0)
		e.uint(0)
		e.uint(0)
		e.uint(0)
	})))
	require.ErrorIs(t, err, ErrSnapshot)
}

// A registration of which only one thing is known keeps that, and a session what it claims, whether that is there or was not read yet.
func TestSnapshotKeepsEachThing(t *testing.T) {
	a := OpenAccount("juliet@example.com", nil)
	a.key, a.touched, a.claims = hashKey{1, 2}, 100, 9
	for i := range 11 {
		a.regs = append(a.regs, &registration{Registration: Registration{Account: a.name, Key: Key{Service: "push.example.net", Node: fmt.Sprintf("n%02d", i)}}, pace: pacer{stub: true}})
	}
	wake := part{wakes: true, at: [3]instant{50}}
	a.regs[0].unread, a.regs[0].mem.ring = 1, []remembered{{8 | counts, 1}}
	a.regs[1].retried = 5
	a.regs[2].pace.spaced = 60
	a.regs[3].Health.Disabled = time.Unix(100, 0)
	a.regs[4].pace.inFlight, a.regs[4].pace.counted, a.regs[4].pace.flight = true, 1234, []part{wake}
	for i := range 2 * fewRemembered {
		a.regs[5].mem.add(uint64(i+1)<<3, time.Unix(int64(i), 0), 1024)
	}
	a.regs[6].pace.waiting, a.regs[6].pace.due = []part{wake}, 50
	tell := part{wakes: true, counts: true, at: [3]instant{50}}
	a.regs[4].pace.told, a.regs[6].pace.told, a.regs[8].pace.told = 7, 7, 8
	a.regs[9].pace.waiting, a.regs[9].pace.due = []part{tell}, 50
	a.regs[10].pace.flight, a.regs[10].pace.inFlight = []part{tell}, true
	a.regs[7].unread = 1
	a.sessions = []*session{
		{id: "s1", claim: &a.regs[7].Key, since: 3},
		{id: "s2", claim: &Key{Service: "push.example.org", Node: "x"}, since: 4},
		{id: "s3", resource: 5, claim: &a.regs[0].Key}, {id: "s4", active: 6}, {id: "s5", away: true},
	}
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount(a.name, nil, data)
	require.NoError(t, err)
	assert.EqualValues(t, 1, b.regs[0].unread)
	assert.EqualValues(t, 5, b.regs[1].retried)
	assert.EqualValues(t, 60, b.regs[2].pace.spaced)
	assert.True(t, b.regs[3].Health.Disabled.Equal(time.Unix(100, 0)))
	assert.True(t, b.regs[4].pace.inFlight)
	assert.EqualValues(t, 1234, b.regs[4].pace.counted)
	assert.Len(t, b.regs[4].pace.flight, 1)
	assert.NotNil(t, b.regs[5].mem.index)
	for i := range 2 * fewRemembered {
		assert.True(t, b.regs[5].mem.has(uint64(i+1)<<3))
	}
	assert.Len(t, b.regs[6].pace.waiting, 1)
	assert.Same(t, &b.regs[7].Key, b.sessions[0].claim)
	assert.Equal(t, Key{Service: "push.example.org", Node: "x"}, *b.sessions[1].claim)
	assert.Same(t, &b.regs[0].Key, b.sessions[2].claim)
	assert.EqualValues(t, 1, b.regs[7].unread)
	assert.Nil(t, b.sessions[0].bound)
	for i := range b.sessions {
		x, y := *a.sessions[i], *b.sessions[i]
		x.claim, y.claim = nil, nil
		assert.Equal(t, x, y)
	}
	for i, r := range b.regs {
		assert.Equal(t, a.regs[i].pace.told, r.pace.told, i)
		for _, p := range r.pace.waiting {
			assert.Equal(t, i == 9, p.counts, i)
		}
		for _, p := range r.pace.flight {
			assert.Equal(t, i == 10, p.counts, i)
		}
	}
	again, err := b.MarshalBinary()
	require.NoError(t, err)
	assert.Equal(t, data, again)

	state := func(e *snapshotWriter, i uint64, flags byte) {
		e.uint(i)
		e.uint(0)
		e.instant(0)
		e.uint(0)
		e.memory(&notified{})
		e.b = append(e.b, flags)
		e.uint(0)
		for range 4 {
			e.instant(0)
		}
		e.uint(0)
	}
	head := sectionOf(2, func(e *snapshotWriter) { writeHead(e, a) })
	keys := sectionOf(6, func(e *snapshotWriter) { writeKeys(e, a) })
	states := func(write func(e *snapshotWriter)) error {
		_, err := RestoreAccount(a.name, nil, sealedSections(head, keys, sectionOf(10, write)))
		return err
	}
	require.NoError(t, states(func(e *snapshotWriter) { state(e, 0, 0); state(e, 1, 0) }))
	require.ErrorIs(t, states(func(e *snapshotWriter) { state(e, 1, 0); state(e, 1, 0) }), ErrSnapshot)
	require.ErrorIs(t, states(func(e *snapshotWriter) { state(e, 1, 0); state(e, 0, 0) }), ErrSnapshot)
	require.ErrorIs(t, states(func(e *snapshotWriter) { state(e, 0, 4) }), ErrSnapshot)
	require.ErrorIs(t, states(func(e *snapshotWriter) { state(e, 11, 0) }), ErrSnapshot)
}

// Of what there is nothing to say a snapshot says nothing. That a registration is to be told what it has been told is no harm.
func TestSnapshotOfNothing(t *testing.T) {
	a := contradiction()
	for _, r := range a.regs {
		*r = registration{Registration: r.Registration, pace: pacer{stub: true}}
	}
	a.sessions = []*session{{id: "s1"}, {id: "s2"}}
	for _, write := range []func(*snapshotWriter, *Account){writeStates, writeUses, writeHeard, writeGone, writeGoneDrops} {
		var e snapshotWriter
		write(&e, a)
		assert.Empty(t, e.b)
	}
	data, err := a.MarshalBinary()
	require.NoError(t, err)
	b, err := RestoreAccount(a.name, nil, sealedSections(data[5:], sectionOf(15, func(e *snapshotWriter) {
		e.uint(1)
		e.uint(9)
		e.b = append(e.b, 3)
	})))
	require.NoError(t, err)
	assert.EqualValues(t, 9, b.regs[0].pace.told)
	assert.Empty(t, b.regs[0].pace.waiting)
}

// After its first error a reader has nothing more to read, so that whoever reads a list comes to its end; and a list has no more elements than there are bytes for.
func TestSnapshotReader(t *testing.T) {
	nothing := func(d *snapshotReader) {
		assert.Zero(t, d.byte())
		assert.Zero(t, d.uint())
		assert.Zero(t, d.limited(9))
		assert.Zero(t, d.count(1))
		assert.Zero(t, d.int())
		assert.Zero(t, d.fixed())
		assert.Empty(t, d.bytes())
		assert.Zero(t, d.key())
		assert.Zero(t, d.instant())
	}
	d := snapshotReader{b: make([]byte, 99)}
	d.fail("first")
	d.fail("second")
	nothing(&d)
	require.EqualError(t, d.err, "first")
	for name, read := range map[string]func(d *snapshotReader){
		"a byte":                 func(d *snapshotReader) { d.byte() },
		"a number":               func(d *snapshotReader) { d.uint() },
		"a number below 0":       func(d *snapshotReader) { d.int() },
		"eight bytes":            func(d *snapshotReader) { d.fixed() },
		"a list":                 func(d *snapshotReader) { d.count(1) },
		"a text":                 func(d *snapshotReader) { d.string() },
		"a registration":         func(d *snapshotReader) { d.registration(contradiction()) },
		"a number of too much":   func(d *snapshotReader) { d.b = []byte{5}; d.limited(4) },
		"a list of too many":     func(d *snapshotReader) { d.b = make([]byte, 22); d.b[0] = 3; d.count(11) },
		"no such registration":   func(d *snapshotReader) { d.b = []byte{2}; d.registration(contradiction()) },
		"a time that means none": func(d *snapshotReader) { d.b, d.base = []byte{10}, 5; d.instant() },
		"a number without end":   func(d *snapshotReader) { d.b = []byte{0x80}; d.int() },
	} {
		var d snapshotReader
		read(&d)
		require.Error(t, d.err, name)
		nothing(&d)
	}
	d = snapshotReader{b: make([]byte, 22)}
	d.b[0] = 2
	assert.Equal(t, 2, d.count(11))
	require.NoError(t, d.err)
}
