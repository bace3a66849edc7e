package pushhttp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"

	"mellium.im/xmpp/jid"
)

// pseudonyms gives JIDs other names, which are the same for one JID as long as the process lives and cannot be guessed back.
type pseudonyms struct {
	key []byte
	mu  *sync.Mutex
	// known are those that were looked up by their JID, for accounts of which there is no history.
	known map[string]string
}

func newPseudonyms() pseudonyms {
	k := make([]byte, 32)
	rand.Read(k)
	return pseudonyms{k, new(sync.Mutex), make(map[string]string)}
}

const pseudonymPrefix = "user-"

func (n *pseudonyms) of(jid string) string {
	if jid == "" {
		return ""
	}
	bare, _, _ := strings.Cut(jid, "/")
	m := hmac.New(sha256.New, n.key)
	m.Write([]byte(bare))
	return pseudonymPrefix + hex.EncodeToString(m.Sum(nil)[:8])
}

// maxKnown bounds how many looked-up JIDs are remembered.
const maxKnown = 1000

func (n *pseudonyms) remember(jid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxKnown {
		clear(n.known)
	}
	n.known[n.of(jid)] = jid
}

func (n *pseudonyms) lookUp(name string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	jid, ok := n.known[name]
	return jid, ok
}

// shown is how a JID is shown.
func (p *Handler) shown(jid string) string {
	if p.cfg.Pseudonyms {
		return p.names.of(jid)
	}
	return jid
}

// shownID is how the host's ID of a session or stanza is shown. Some hosts make them of JIDs.
func (p *Handler) shownID(id string) string {
	if p.cfg.Pseudonyms && strings.Contains(id, "@") {
		return "id-" + strings.TrimPrefix(p.names.of(strings.ReplaceAll(id, "/", " ")), pseudonymPrefix)
	}
	return id
}

// resolve returns the account that is shown as name, in its prepared form: any spelling and any resource of its JID will do.
func (p *Handler) resolve(name string) (string, bool) {
	if !p.cfg.Pseudonyms || !strings.HasPrefix(name, pseudonymPrefix) || strings.Contains(name, "@") {
		if h := p.cfg.History; h != nil && h.about(name).last > 0 {
			return name, true // as the host spells it, whatever that is
		}
		if j, err := jid.Parse(fromURI(name)); err == nil && j.Localpart() != "" {
			return j.Bare().String(), true
		}
		return name, name != ""
	}
	if jid, ok := p.names.lookUp(name); ok {
		return jid, true
	}
	if p.cfg.History == nil {
		return "", false
	}
	jid, ok := p.cfg.History.find(func(jid string) bool { return p.names.of(jid) == name })
	if ok {
		p.names.remember(jid)
	}
	return jid, ok
}
