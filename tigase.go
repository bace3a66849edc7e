package push

import (
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"strconv"
	"strings"
	"unicode/utf8"

	"mellium.im/xmpp/stanza"

	"github.com/xmpp-push/push/internal/stanzaxml"
	"github.com/xmpp-push/push/wishes"
)

// What clients ask for in an <enable/> of XEP-0357, in the namespaces of Tigase, which Siskin, Beagle and Snikket for iOS use
// (https://xeps.tigase.net/docs/push-notifications/).

// maxPayload is the largest limit of a payload that is kept: what a payload can say has no more.
const maxPayload = 1 << 16

const (
	nsIgnoreUnknown = "tigase:push:filter:ignore-unknown:0"
	nsMuted         = "tigase:push:filter:muted:0"
	nsGroupchat     = "tigase:push:filter:groupchat:0"
	nsAway          = "tigase:push:away:0"
	nsPriority      = "tigase:push:priority:0"
	nsEncrypt       = "tigase:push:encrypt:0"
	nsJingle        = "tigase:push:jingle:0"
)

// asked reads the attributes of the <enable/>.
func (p *payload) asked(start xml.StartElement) {
	switch stanzaxml.Attribute(start, "away") {
	case "true", "1":
		p.wishes.Away = true
	}
	p.wishes.Name = stanzaxml.Attribute(start, "name")
	if len(p.wishes.Name) > wishes.MaxNameBytes {
		p.large("name is longer than %d bytes", wishes.MaxNameBytes)
	} else if stanzaxml.CheckText(p.wishes.Name) != nil {
		p.bad("name is not text")
	}
}

// asks reads a child of the <enable/>.
func (p *payload) asks(e *stanzaxml.Element, start xml.StartElement) error {
	w := &p.wishes
	switch start.Name {
	case xml.Name{Space: nsIgnoreUnknown, Local: "ignore-unknown"}:
		w.IgnoreUnknown = true
	case xml.Name{Space: nsPriority, Local: "priority"}:
		w.Priority = true
	case xml.Name{Space: nsJingle, Local: "jingle"}:
		w.Jingle = true
	case xml.Name{Space: nsMuted, Local: "muted"}:
		return e.Children(func(child xml.StartElement) error {
			if child.Name == (xml.Name{Space: nsMuted, Local: "item"}) {
				if j := p.chat(child, len(w.Muted)); j != "" {
					w.Muted = append(w.Muted, bare(j))
				}
			}
			return nil
		}, nil)
	case xml.Name{Space: nsGroupchat, Local: "groupchat"}:
		w.Groupchat = true
		return e.Children(func(child xml.StartElement) error {
			if child.Name == (xml.Name{Space: nsGroupchat, Local: "room"}) {
				p.room(child)
			}
			return nil
		}, nil)
	case xml.Name{Space: nsEncrypt, Local: "encrypt"}:
		return p.encrypt(e, start)
	}
	return nil
}

// chat reads the attribute jid of an element of a list that has listed ones already. What is wrong with it gives "".
func (p *payload) chat(start xml.StartElement, listed int) string {
	if p.fault != nil {
		return ""
	}
	if listed == wishes.MaxListed {
		p.large("more than %d JIDs in a list", wishes.MaxListed)
		return ""
	}
	j, _ := prepared(stanzaxml.Attribute(start, "jid"))
	if j == "" {
		p.bad("a " + start.Name.Local + " has no JID")
		return ""
	}
	return j
}

func (p *payload) room(start xml.StartElement) {
	w := &p.wishes
	j := p.chat(start, len(w.Rooms))
	if j == "" {
		return
	}
	r := wishes.Room{Room: bare(j), Nick: stanzaxml.Attribute(start, "nick")}
	switch err := r.Allow.UnmarshalText([]byte(stanzaxml.Attribute(start, "allow"))); {
	case err != nil:
		p.bad("a room is to be allowed never, always or mentioned")
	case r.Allow == wishes.RoomMentioned && strings.TrimSpace(r.Nick) == "":
		p.bad("a room that is allowed when mentioned needs a nick")
	case stanzaxml.CheckText(r.Nick) != nil:
		p.bad("a nick is not text")
	default:
		w.Rooms = append(w.Rooms, r)
	}
}

// encrypt reads how the payload is to be encrypted, which is refused rather than not kept: the client would take what it gets for a fake.
func (p *payload) encrypt(e *stanzaxml.Element, start xml.StartElement) error {
	if p.wishes.Encryption != nil {
		p.bad("there is more than one encryption")
		return nil
	}
	text, err := e.Text(256, func() {})
	if err != nil {
		return err
	}
	if alg := stanzaxml.Attribute(start, "alg"); !strings.EqualFold(alg, wishes.AES128GCM) {
		p.refuse(stanza.FeatureNotImplemented, "the algorithm is not "+wishes.AES128GCM)
		return nil
	}
	key, err := decodeBase64(text)
	if err != nil || len(key) != 16 {
		p.bad("the key is not 16 bytes in base64")
		return nil
	}
	enc := &wishes.Encryption{Algorithm: wishes.AES128GCM, Key: wishes.NewSecret(string(key))}
	if s := stanzaxml.Attribute(start, "max-size"); s != "" {
		size, err := strconv.ParseUint(s, 10, 31)
		switch {
		case err != nil:
			p.bad("max-size is not a number of bytes")
			return nil
		case size < wishes.MinPayloadBytes:
			p.large("max-size is less than %d bytes", wishes.MinPayloadBytes)
			return nil
		}
		enc.MaxSize = int(min(size, maxPayload))
	}
	p.wishes.Encryption = enc
	return nil
}

// decodeBase64 reads base64 in either alphabet (RFC 4648 §4, §5), with and without padding, and with the line breaks that clients put in.
func decodeBase64(text string) ([]byte, error) {
	text = strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, text)
	return base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
}

// finish puts the lists in the order that lookups need, and looks at the size of all together.
func (p *payload) finish() {
	p.wishes.Sort()
	if p.fault != nil {
		return
	}
	if b, _ := p.wishes.AppendBinary(nil); len(b) > wishes.MaxWishesBytes { // its error is always nil
		p.large("more than %d bytes of wishes", wishes.MaxWishesBytes)
	}
}

// encrypts tells whether the payload is encrypted instead of the summary form, of which nothing is left then.
func (n *Notification) encrypts() bool { return n.Wishes != nil && n.Wishes.Encryption != nil }

// priority is how urgent the notification is for tigase:push:priority:0: high is what the user is to be alerted of.
func (n *Notification) priority() string {
	if n.Class >= ClassImportant {
		return "high"
	}
	return "low"
}

// tigasePayload is what is encrypted (https://xeps.tigase.net/docs/push-notifications/encrypt/, §4.4).
type tigasePayload struct {
	Unread   int      `json:"unread"`
	Sender   string   `json:"sender,omitempty"`
	Type     string   `json:"type,omitempty"`
	Nickname string   `json:"nickname,omitempty"`
	Message  string   `json:"message,omitempty"`
	SID      string   `json:"sid,omitempty"`
	Media    []string `json:"media,omitempty"`
}

// payload is what the client is told. Of a stanza that only its session can make sense of, it is told the sender and the stand-in: without a text, clients
// leave out the sender as well.
func (n *Notification) payload() (p tigasePayload, call bool) {
	p.Unread = n.Unread
	if len(n.Carried) == 0 {
		return p, false
	}
	st := &n.Carried[len(n.Carried)-1].Stanza
	p.Type, p.Sender = "chat", bare(st.From)
	switch {
	case st.Content == ContentCall && !(st.Details != nil && st.Details.Call != nil && st.Details.Call.Invite): // there is no Jingle session to wait for
		p.Type, p.Sender = "call", st.From
		if st.Details != nil && st.Details.Call != nil {
			p.SID, p.Media = st.Details.Call.ID, st.Details.Call.Media
		}
		return p, true
	case st.Content == ContentSubscription:
		p.Type = "subscribe"
		return p, false
	case st.Type == MessageGroupchat:
		p.Type = "groupchat"
		if len(p.Sender) < len(st.From) {
			p.Nickname = st.From[len(p.Sender)+1:]
		}
	}
	if st.Content != ContentEncrypted { // its body says at most that one cannot read it
		p.Message = st.Body
	}
	if p.Message == "" {
		p.Message = n.standIn
	}
	return p, false
}

const (
	// defaultPayload is how large a payload may be for a client that does not say (tigase-server has it so), payloadHead what is taken of it for
	// what is around it.
	defaultPayload, payloadHead = 3000, 64
	ivBytes, gcmTagBytes        = 12, 16
)

// sealed returns the payload for the client's key, as the attributes iv and type and the text of the element. An error is that of a key which is none,
// and so cannot come of a valid Encryption.
func (n *Notification) sealed() (iv, typ, text string, err error) {
	e := n.Wishes.Encryption
	limit := cmp.Or(e.MaxSize, defaultPayload) - payloadHead // of base64
	block, err := aes.NewCipher([]byte(e.Key.Reveal()))
	if err != nil {
		return "", "", "", err
	}
	aead, _ := cipher.NewGCM(block) // which fails for blocks of another size than those of AES
	var nonce [ivBytes]byte
	_, _ = rand.Read(nonce[:]) // never fails
	plain, call := n.fitting(limit/4*3 - gcmTagBytes)
	if call {
		typ = "voip"
	}
	secret := aead.Seal(plain[:0], nonce[:], plain, nil)
	return base64.StdEncoding.EncodeToString(nonce[:]), typ, base64.StdEncoding.EncodeToString(secret), nil
}

// fitting returns the payload in at most limit bytes: of a longer text the end is cut off, and if that is not enough the rest goes too.
func (n *Notification) fitting(limit int) (plain []byte, call bool) {
	p, call := n.payload()
	for {
		plain, _ = json.Marshal(p) // of texts and a number, which cannot fail
		over := len(plain) - limit
		switch {
		case over <= 0:
			return plain, call
		case p.Message != "":
			end := max(len(p.Message)-over, 0) // each of its bytes is one in the payload at least
			for end > 0 && !utf8.RuneStart(p.Message[end]) {
				end--
			}
			p.Message = p.Message[:end]
		case p.Nickname != "":
			p.Nickname = ""
		case p.Sender != "" || p.SID != "":
			p = tigasePayload{Unread: p.Unread, Type: p.Type}
		default:
			return plain, call
		}
	}
}

func (n *Notification) appendEncrypted(dst []byte) []byte {
	iv, typ, text, err := n.sealed()
	if err != nil {
		return dst // nothing is said rather than in the clear
	}
	dst = append(dst, `<encrypted xmlns="`+nsEncrypt+`" iv="`...)
	dst = append(append(dst, iv...), '"')
	if typ != "" {
		dst = append(append(append(dst, ` type="`...), typ...), '"')
	}
	return append(append(append(dst, '>'), text...), `</encrypted>`...)
}

func (n *Notification) writeEncrypted(w *tokenList) {
	if iv, typ, text, err := n.sealed(); err == nil {
		w.element(nsEncrypt, "encrypted", text, "iv", iv, "type", typ)
	}
}
