package push_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"iter"
	"maps"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mellium.im/xmlstream"

	. "github.com/xmpp-push/push"
)

// What hosts hand over by mistake to any exported function: values that nobody filled in, nil, contexts that are none, an Engine that is closed.

// exportedFuncs are the package's functions; exported says when one is missing.
var exportedFuncs = map[string]any{
	"CheckEvent": CheckEvent, "Classify": Classify, "Enroll": Enroll, "Evict": Evict, "FactOf": FactOf, "IsRequest": IsRequest, "New": New, "NewAccount": NewAccount, "NewMemoryStore": NewMemoryStore,
	"NewService": NewService, "Observers": Observers, "OpenAccount": OpenAccount, "ParseAffiliation": ParseAffiliation, "ParseRequest": ParseRequest, "ParseStanza": ParseStanza,
	"ReadAffiliation": ReadAffiliation, "ReadReply": ReadReply, "ReadRequest": ReadRequest, "ReadStanza": ReadStanza, "ReplyOf": ReplyOf, "RestoreAccount": RestoreAccount,
}

// exportedTypes have exported methods.
var exportedTypes = []any{
	new(Account), new(AccountRemoved), new(AckDelayed), new(Acknowledged), new(AffiliationNone), new(Answer), new(Answers), new(ArchiveAdded), new(CallAction), new(Carbon),
	new(ChangeKind), new(ChatChanged), new(ChatInfo), new(ChatQuestion), new(Class), new(Config), new(Content), new(Decision), new(Displayed), new(Effects), new(Engine), new(Fact), new(Features),
	new(Groupchat), new(HibernationEnd), new(HibernationStart), new(KeepMode), new(Key), new(Kind), new(MemoryStore), new(MessageType), new(Notification), new(Offer), new(Offline),
	new(Outcome), new(Ping), new(Policy), new(PublishIQ), new(PublishMessage), new(PublisherFunc), new(PushDisable), new(PushEnable), new(Reason), new(RegistrationCounts), new(Reply),
	new(ReplyError), new(Request), new(Router), new(Rule), new(Service), new(SessionActive), new(SessionClose), new(SessionOpen), new(SessionPresence), new(SessionRestored), new(Stanza),
	new(StanzaQueued), new(UnsentError), new(Update),
}

// exported returns the names of the package's functions and, with the type before a dot, methods.
func exported(t *testing.T) (names []string) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() {
				continue
			}
			name := fn.Name.Name
			if fn.Recv != nil {
				of := fn.Recv.List[0].Type
				if p, ok := of.(*ast.StarExpr); ok {
					of = p.X
				}
				if id, ok := of.(*ast.Ident); ok {
					if !id.IsExported() {
						continue
					}
					name = id.Name + "." + name
				}
			}
			names = append(names, name)
		}
	}
	return names
}

// byMistake is what a type of argument may be by mistake. What is not named here is its zero value.
func byMistake(of reflect.Type) []reflect.Value {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var vs []any
	switch of {
	case reflect.TypeFor[context.Context]():
		vs = []any{context.Background(), ended}
	case reflect.TypeFor[Event]():
		for _, ev := range emptyEvents {
			vs = append(vs, ev, reflect.New(reflect.TypeOf(ev)).Interface())
		}
		vs = append(vs, (*Offline)(nil), PushEnable{Session: SessionID{Account: juliet}}, PushDisable{Session: SessionID{Account: juliet}}, Displayed{Account: juliet},
			SessionOpen{Session: SessionID{Account: juliet}}, Offline{Account: juliet})
	case reflect.TypeFor[xml.TokenReader]():
		vs = []any{readerOfNothing{}, xml.NewDecoder(strings.NewReader(""))}
	case reflect.TypeFor[*xml.Encoder](), reflect.TypeFor[xmlstream.TokenWriter]():
		vs = []any{xml.NewEncoder(io.Discard)}
	case reflect.TypeFor[error]():
		vs = []any{io.EOF, (*ReplyError)(nil)}
	case reflect.TypeFor[EventHandler]():
		vs = []any{(*Engine)(nil), new(Engine)}
	case reflect.TypeFor[time.Time]():
		vs = []any{time.Now(), time.Unix(1<<60, 0)}
	case reflect.TypeFor[[]byte]():
		vs = []any{[]byte{}, []byte("<"), []byte("\xff"), []byte("<iq/>")}
	case reflect.TypeFor[string]():
		vs = []any{"\xff", "a@b", strings.Repeat("x", 1<<16)}
	case reflect.TypeFor[*Policy]():
		vs = []any{new(Policy)}
	case reflect.TypeFor[[]*Observer]():
		vs = []any{[]*Observer{nil, {}}}
	case reflect.TypeFor[[]Registration]():
		vs = []any{make([]Registration, 2)}
	case reflect.TypeFor[*Decision]():
		vs = []any{new(Decision)}
	case reflect.TypeFor[*Effects]():
		vs = []any{new(Effects)}
	default:
		if of.Kind() == reflect.Int {
			vs = []any{-1, 1}
		}
	}
	var list []reflect.Value
	if of != reflect.TypeFor[*xml.Encoder]() && of != reflect.TypeFor[xmlstream.TokenWriter]() { // which the XML libraries give, never a host's mistake
		list = append(list, reflect.Zero(of))
	}
	for _, v := range vs {
		r := reflect.New(of).Elem()
		r.Set(reflect.ValueOf(v))
		list = append(list, r)
	}
	return list
}

// emptyEvents are one of each, without anything in them.
var emptyEvents = []Event{
	SessionOpen{}, SessionRestored{}, SessionClose{}, PushEnable{}, PushDisable{}, AckDelayed{}, Acknowledged{}, SessionActive{}, SessionPresence{}, Displayed{}, ChatChanged{},
	HibernationStart{}, StanzaQueued{}, HibernationEnd{}, ArchiveAdded{}, Offline{}, Groupchat{}, Ping{}, AffiliationNone{}, AccountRemoved{},
}

type readerOfNothing struct{}

func (readerOfNothing) Token() (xml.Token, error) { return nil, io.EOF }

// arguments are all that goes wrong with one argument, and with all of them.
func arguments(f reflect.Type, first int) [][]reflect.Value {
	var lists [][]reflect.Value
	args := make([][]reflect.Value, 0, f.NumIn())
	zero := make([]reflect.Value, 0, f.NumIn())
	for i := first; i < f.NumIn(); i++ {
		vs := byMistake(f.In(i))
		args = append(args, vs)
		zero = append(zero, vs[0])
	}
	lists = append(lists, zero)
	for i := range args {
		for _, v := range args[i] {
			with := slices.Clone(zero)
			with[i] = v
			lists = append(lists, with)
			for j := range args {
				if j != i {
					for _, w := range args[j] {
						both := slices.Clone(with)
						both[j] = w
						lists = append(lists, both)
					}
				}
			}
		}
	}
	return lists
}

// TestZeroValues calls every exported function and method with what is nothing. It gets an answer, at the latest when a hook's time is over.
func TestZeroValues(t *testing.T) {
	names := exported(t)
	var covered []string
	call := func(name string, f reflect.Value, args []reflect.Value) {
		defer func() {
			if r := recover(); r != nil {
				at := ""
				for line := range strings.Lines(string(debug.Stack())) {
					if strings.Contains(line, ".go:") && !strings.Contains(line, "_test.go") && strings.Contains(line, "push") && !strings.Contains(line, "/pkg/") {
						at += " " + strings.TrimSpace(line)
					}
				}
				t.Errorf("%s(%.100q): %v%s", name, fmt.Sprint(args), r, at)
			}
		}()
		var out []reflect.Value
		if f.Type().IsVariadic() {
			out = f.CallSlice(args)
		} else {
			out = f.Call(args)
		}
		for _, v := range out {
			switch r := v.Interface().(type) {
			case xml.TokenReader:
				for range 100 {
					if tok, err := r.Token(); tok == nil || err != nil {
						break
					}
				}
			case iter.Seq2[Kept, error]:
				for range r {
				}
			case error:
				assert.NotEmpty(t, r.Error())
				assert.NotContains(t, r.Error(), "%!")
			default:
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exportedFuncs)) {
		covered = append(covered, name)
		t.Run(name, func(t *testing.T) {
			f := reflect.ValueOf(exportedFuncs[name])
			for _, args := range arguments(f.Type(), 0) {
				call(name, f, args)
			}
		})
	}
	for _, v := range exportedTypes {
		typ := reflect.TypeOf(v)
		for m := range typ.NumMethod() {
			m := typ.Method(m)
			name := typ.Elem().Name() + "." + m.Name
			if !slices.Contains(names, name) { // of what it embeds, or of tests
				continue
			}
			covered = append(covered, name)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					for _, args := range arguments(m.Type, 1) {
						for _, recv := range receivers(t, typ, m) {
							call(name, m.Func, append([]reflect.Value{recv}, args...))
						}
					}
				})
			})
		}
	}
	for _, name := range names {
		if !slices.Contains(covered, name) {
			t.Errorf("%s is not called: add it to the list", name)
		}
	}
}

// receivers are the values of a type that nobody has filled in: its zero value, nil where a method can be called on that, and what is over.
func receivers(t *testing.T, typ reflect.Type, m reflect.Method) []reflect.Value {
	list := []reflect.Value{reflect.New(typ.Elem())}
	if typ == reflect.TypeFor[*ReplyError]() { // as errors of the host's may hold
		list = append(list, reflect.Zero(typ))
	}
	if typ == reflect.TypeFor[*Engine]() {
		if m.Type.NumOut() > 0 && m.Type.Out(m.Type.NumOut()-1) == reflect.TypeFor[error]() {
			list = append(list, reflect.Zero(typ)) // what New returns with an error
		}
		closed, err := New(Config{Host: "example.com", Publisher: PublisherFunc(accept)})
		require.NoError(t, err)
		require.NoError(t, closed.Close(t.Context()))
		list = append(list, reflect.ValueOf(closed))
		open, err := New(Config{Host: "example.com", Publisher: PublisherFunc(accept)})
		require.NoError(t, err)
		t.Cleanup(func() { _ = open.Close(context.Background()) })
		list = append(list, reflect.ValueOf(open))
	}
	return list
}

// TestNotMade is what is not like nothing, but has an answer that says what to do.
func TestNotMade(t *testing.T) {
	for _, e := range []*Engine{nil, new(Engine)} {
		for name, f := range map[string]func() error{
			"Handle": func() error { _, err := e.Handle(t.Context(), Offline{juliet, message("m1")}); return err },
			"enable": func() error {
				return e.HandleTo(t.Context(), PushEnable{Session: SessionID{Account: juliet}, Key: phone}, nil)
			},
			"Inspect":    func() error { _, err := e.Inspect(t.Context(), juliet); return err },
			"Refresh":    func() error { return e.Refresh(t.Context(), juliet) },
			"RefreshAll": func() error { return e.RefreshAll(t.Context()) },
			"Close":      func() error { return e.Close(t.Context()) },
		} {
			err := f()
			require.ErrorIs(t, err, ErrClosed, name)
			assert.ErrorContains(t, err, "use what New returns", name)
		}
	}
	var made Engine
	assert.Equal(t, 12*time.Hour, made.Policy().Expire, "the default")

	a := new(Request).Answer(t.Context(), new(Engine))
	require.ErrorIs(t, a.Err, ErrEvent)
	assert.ErrorContains(t, a.Err, "ParseRequest")
	assert.Contains(t, string(a.AppendXML(nil)), `<iq type="error"><error type="wait"><internal-server-error`)
	a = (&Request{Event: PushEnable{}}).Answer(t.Context(), nil)
	require.ErrorIs(t, a.Err, ErrEvent)
	assert.ErrorContains(t, a.Err, "give it the Engine")

	var out strings.Builder
	for _, v := range []any{PublishIQ{}, PublishMessage{}, &PublishIQ{}} {
		require.ErrorContains(t, xml.NewEncoder(&out).Encode(v), "no Notification")
		assert.Empty(t, out.String())
	}
	for name, r := range map[string]*Router{"Send": {Host: "example.com"}, "Host": {Send: func(context.Context, string, []byte) error { return nil }}} {
		assert.ErrorContains(t, r.Publish(t.Context(), &Notification{Key: phone}), name)
	}
	var f PublisherFunc
	require.ErrorContains(t, f.Publish(t.Context(), new(Notification)), "give a function")
	_, err := ReadStanza("m1", nil)
	require.ErrorIs(t, err, ErrStanza)
	assert.ErrorContains(t, err, "the reader is nil")
	_, err = ReadRequest(phoneSession, nil)
	require.ErrorIs(t, err, ErrStanza)
	assert.ErrorContains(t, err, "the reader is nil")
}

// The zero Account and Service are those without a name, and with the default policy.
func TestZeroCore(t *testing.T) {
	var zero Account
	opened, now := OpenAccount("", nil), newYear
	for _, a := range []*Account{&zero, opened} {
		a.Handle(SessionOpen{Session: SessionID{ID: "s1"}}, Facts{Now: now}, nil)
		a.Load([]Registration{{Key: phone, Client: "c"}}, now, nil)
		a.Handle(PushEnable{Session: SessionID{ID: "s1"}, Key: phone}, Facts{Now: now}, nil)
		a.Handle(HibernationStart{SessionID{ID: "s1"}, []Stanza{message("m1")}}, Facts{Now: now}, nil)
		keys := a.Due(now, nil, nil)
		require.Equal(t, []Key{phone}, keys)
		n, ok := a.Begin(phone, now, nil)
		require.True(t, ok)
		assert.Equal(t, "New Message!", n.Body)
		assert.Equal(t, OutcomeAccepted, a.End(phone, Reply{}, now, nil).Outcome)
	}
	assert.Equal(t, opened.Status(now), zero.Status(now))
	// Nobody looks at what becomes of what is too old, of a registration that is gone, and of what is given up.
	for _, a := range []*Account{new(Account), OpenAccount("", nil)} {
		a.Load([]Registration{{Key: phone}}, now, nil)
		a.Handle(Offline{Stanza: message("m1")}, Facts{Now: now}, nil)
		assert.Empty(t, a.Due(now.Add(13*time.Hour), nil, nil))
		a.Handle(Offline{Stanza: message("m2")}, Facts{Now: now}, nil)
		a.Abandon(ReasonClosed, nil)
		assert.Empty(t, a.Due(now, nil, nil))
		a.Load(nil, now, nil)
		assert.Empty(t, a.Registrations())
	}
	var s Service
	for range 64 {
		ok, _ := s.Admit(now)
		require.True(t, ok)
	}
	ok, _ := s.Admit(now)
	assert.False(t, ok)
	for range 5 {
		s.Done(now, false)
	}
	assert.True(t, s.Broken())
}
