package push_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	"mellium.im/xmpp/stream"

	"github.com/xmpp-push/push"
	"github.com/xmpp-push/push/mellium"
	"github.com/xmpp-push/push/pushtest"
)

func TestRouterSuite(t *testing.T) {
	pushtest.Publisher(t, openRouter)
	t.Run("Push 2.0", func(t *testing.T) { pushtest.Push2Publisher(t, openRouter) })
}

// settle is short enough for a test, and long enough for an answer.
const settle = 100 * time.Millisecond

func openRouter(t testing.TB, service func([]byte) [][]byte) push.Publisher {
	r := &push.Router{Host: pushtest.Host, Settle: settle}
	// One goroutine reads what comes in, as that of a stream does.
	in := make(chan []byte, 1024)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for stanza := range in {
			if _, err := r.HandleReply(stanza); err != nil {
				t.Errorf("%q: %v", stanza, err)
			}
		}
	}()
	t.Cleanup(func() { close(in); <-read })
	r.Send = func(_ context.Context, to string, iq []byte) error {
		if to != pushtest.Service {
			t.Errorf("sent to %s", to)
		}
		for _, stanza := range service(iq) {
			in <- stanza
		}
		return nil
	}
	return r
}

// TestMelliumPublisherSuite has a far end of its own, because mellium's would answer service-unavailable where the suite wants silence.
func TestMelliumPublisherSuite(t *testing.T) {
	pushtest.Publisher(t, openMellium)
	t.Run("Push 2.0", func(t *testing.T) { pushtest.Push2Publisher(t, openMellium) })
}

func openMellium(t testing.TB, service func([]byte) [][]byte) push.Publisher {
	a, b := net.Pipe()
	session, err := xmpp.NewSession(context.Background(), jid.MustParse(pushtest.Service), jid.MustParse(pushtest.Host), a, 0, func(_ context.Context, in, out *stream.Info, _ *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, any, error) {
		in.XMLNS, out.XMLNS = stanza.NSServer, stanza.NSServer
		return xmpp.Ready | xmpp.Authn | xmpp.Secure, nil, nil, nil
	})
	require.NoError(t, err)
	var wg sync.WaitGroup
	replies := make(chan []byte, 1024)
	wg.Go(func() { _ = session.Serve(nil) })
	wg.Go(func() {
		defer close(replies)
		for d := xml.NewDecoder(b); ; {
			tok, err := d.Token()
			if err != nil {
				return
			}
			var iq bytes.Buffer
			e := xml.NewEncoder(&iq)
			if _, err := xmlstream.Copy(e, xmlstream.MultiReader(xmlstream.Token(tok), xmlstream.InnerElement(d))); err != nil {
				return
			}
			e.Flush()
			for _, reply := range service(iq.Bytes()) {
				replies <- reply
			}
		}
	})
	wg.Go(func() {
		for reply := range replies {
			name, rest, _ := bytes.Cut(reply, []byte(" "))
			fmt.Fprintf(b, "%s xmlns='%s' %s", name, stanza.NSServer, rest)
		}
	})
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
	return mellium.Publisher{Session: session, Settle: settle}
}

// TestExampleStore holds the Store of the Example to its contract.
func TestExampleStore(t *testing.T) {
	pushtest.Store(t, func(*testing.T) push.Store { return &table{rows: make(map[string][]push.Registration)} })
}
