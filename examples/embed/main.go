// Command embed is the wiring of a server that routes stanzas: it sends publishes as IQs through its router, and gives the replies back where they
// come in. The server here is a few lines that print.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"regexp"

	"github.com/xmpp-push/push"
)

// server stands for a real one.
type server struct {
	push   *push.Engine
	router *push.Router
}

// route sends a stanza on its way. Here a push service answers every publish with a result.
func (s *server) route(_ context.Context, to string, iq []byte) error {
	fmt.Printf("→ %s\n%s\n", to, iq)
	id := regexp.MustCompile(`id="([^"]+)"`).FindSubmatch(iq)[1]
	go s.incoming(fmt.Appendf(nil, `<iq type="result" from="%s" to="example.com" id="%s"/>`, to, id))
	return nil
}

// incoming is where IQ replies to the server's domain arrive.
func (s *server) incoming(iq []byte) {
	if ours, err := s.router.HandleReply(iq); err != nil || !ours {
		log.Println("not a reply to a publish:", err)
	}
}

func main() {
	ctx := context.Background()
	s := new(server)
	s.router = &push.Router{Host: "example.com", Send: s.route}
	var err error
	if s.push, err = push.New(push.Config{Host: "example.com", Publisher: s.router}); err != nil {
		log.Fatal(err)
	}
	session := push.SessionID{Account: "juliet@example.com", ID: "stream-1"}
	must(s.push.Handle(ctx, push.SessionOpen{Session: session, JID: "juliet@example.com/phone"}))

	// A client's IQ with <enable/> or <disable/>: parse it, let the Engine handle it, send the reply.
	req, err := push.ParseRequest(session, []byte(`<iq type="set" id="e1"><enable xmlns="urn:xmpp:push:0" jid="push.example.net" node="token"/></iq>`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("← %s\n", req.Answer(ctx, s.push).AppendXML(nil))

	must(s.push.Handle(ctx, push.HibernationStart{Session: session})) // the connection is gone
	st, err := push.ParseStanza("stanza-id-1", []byte(`<message from="romeo@example.net" to="juliet@example.com"><body>Hi</body></message>`))
	if err != nil {
		log.Fatal(err)
	}
	d := must(s.push.Handle(ctx, push.StanzaQueued{Session: session, Stanza: st}))
	for _, v := range d.Verdicts {
		fmt.Printf("%s/%s: notify %v, because %v\n", v.Service, v.Node, v.Notify, v.Reason.Sentence())
	}
	if err := s.push.Close(ctx); err != nil { // sends what waits
		fmt.Fprintln(os.Stderr, err)
	}
}

func must(d push.Decision, err error) push.Decision {
	if err != nil {
		log.Fatal(err)
	}
	return d
}
