package push

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// scanner reads the XML of one stanza, whole and in memory, and feeds a collector. It exists because encoding/xml needs several times
// as long and an allocation for every token; it accepts only what RFC 6120 §11 lets a stanza contain, and what it accepts encoding/xml
// accepts too, with the same result (FuzzParseStanza).
type scanner struct {
	src  string
	pos  int
	out  collector
	open [MaxStanzaDepth]string // names as written, for the end tags
	// decls are the namespace declarations in force, innermost last; base[d] is how many there were before element d.
	decls [maxDecls]decl
	nDecl int
	base  [MaxStanzaDepth]int
}

// maxDecls bounds the namespace declarations in force at one place. Real stanzas have fewer than ten.
const maxDecls = 32

// maxAttrs bounds the attributes of one element, which are compared with each other.
const maxAttrs = 32

type decl struct{ prefix, uri string }

// xmlNS is what the prefix xml stands for without a declaration.
const xmlNS = "http://www.w3.org/XML/1998/namespace"

type attr struct{ name, value string }

var (
	errEOF    = errors.New("it ends too early")
	errSyntax = errors.New("not well-formed")
)

func (s *scanner) run() error {
	if err := checkText(s.src); err != nil {
		return err
	}
	s.skipSpace()
	for {
		if s.pos >= len(s.src) {
			return errEOF
		}
		if s.src[s.pos] != '<' {
			if s.out.depth == 0 {
				return fmt.Errorf("%w: text outside of the element", errSyntax)
			}
			if err := s.text(); err != nil {
				return err
			}
			continue
		}
		var err error
		switch rest := s.src[s.pos:]; {
		case strings.HasPrefix(rest, "</"):
			err = s.endTag()
		case strings.HasPrefix(rest, "<![CDATA[") && s.out.depth > 0:
			err = s.cdata()
		case strings.HasPrefix(rest, "<!"), strings.HasPrefix(rest, "<?"):
			err = errors.New("comments, processing instructions and document types are forbidden in XMPP")
		default:
			err = s.startTag()
		}
		if err != nil {
			return err
		}
		if s.out.depth == 0 {
			break
		}
	}
	s.skipSpace()
	if s.pos < len(s.src) {
		return fmt.Errorf("%w: more than one element", errSyntax)
	}
	return nil
}

// checkText refuses what no XML document may contain.
func checkText(s string) error {
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b < ' ' && b != '\t' && b != '\n' && b != '\r' {
				return fmt.Errorf("%w: control character %#x", errSyntax, b)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == 0xfffe || r == 0xffff {
			return fmt.Errorf("%w: not UTF-8 text", errSyntax)
		}
		i += n
	}
	return nil
}

func (s *scanner) skipSpace() {
	for s.pos < len(s.src) && isSpace(s.src[s.pos]) {
		s.pos++
	}
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// name reads an element's or attribute's name. Beyond ASCII it takes more characters than XML does, which does no harm: such names mean
// nothing to the rules.
func (s *scanner) name() (string, error) {
	start := s.pos
	for s.pos < len(s.src) && isNameByte(s.src[s.pos]) {
		s.pos++
	}
	n := s.src[start:s.pos]
	prefix, local, ok := strings.Cut(n, ":")
	if !ok {
		local = prefix
	}
	if prefix == "" || local == "" || strings.IndexByte(local, ':') >= 0 || !isNameStart(prefix[0]) || !isNameStart(local[0]) {
		return "", fmt.Errorf("%w: a name is missing or cannot be one", errSyntax)
	}
	return n, nil
}

func isNameStart(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '_' || b >= utf8.RuneSelf
}

func isNameByte(b byte) bool {
	return isNameStart(b) || '0' <= b && b <= '9' || b == '-' || b == '.' || b == ':'
}

func (s *scanner) startTag() error {
	s.pos++
	name, err := s.name()
	if err != nil {
		return err
	}
	d := s.out.depth
	if d >= MaxStanzaDepth {
		return fmt.Errorf("elements nest deeper than %d", MaxStanzaDepth)
	}
	s.open[d] = name
	s.base[d] = s.nDecl
	var attrs [maxAttrs]attr
	n := 0
	for {
		before := s.pos
		s.skipSpace()
		if s.pos >= len(s.src) {
			return errEOF
		}
		if b := s.src[s.pos]; b == '>' || b == '/' {
			break
		}
		if s.pos == before {
			return fmt.Errorf("%w: attributes need space between them", errSyntax)
		}
		a, err := s.attr()
		if err != nil {
			return err
		}
		for _, o := range attrs[:n] {
			if o.name == a.name {
				return fmt.Errorf("%w: attribute given twice", errSyntax)
			}
		}
		if n == maxAttrs {
			return fmt.Errorf("more than %d attributes", maxAttrs)
		}
		attrs[n] = a
		n++
		if a.name == "xmlns" || strings.HasPrefix(a.name, "xmlns:") {
			if s.nDecl == maxDecls {
				return fmt.Errorf("more than %d namespace declarations", maxDecls)
			}
			prefix := strings.TrimPrefix(strings.TrimPrefix(a.name, "xmlns"), ":")
			if prefix != "" && a.value == "" {
				return fmt.Errorf("%w: a prefix without a namespace", errSyntax)
			}
			if prefix == "xmlns" || prefix == "xml" && a.value != xmlNS {
				return fmt.Errorf("%w: a prefix that is reserved", errSyntax)
			}
			s.decls[s.nDecl] = decl{prefix, a.value}
			s.nDecl++
		}
	}
	space, local, err := s.resolve(name)
	if err != nil {
		return err
	}
	s.out.start(space, local)
	wants := s.out.wantsAttrs()
	for _, a := range attrs[:n] {
		if strings.IndexByte(a.name, ':') < 0 {
			if wants {
				s.out.attr(a.name, a.value)
			}
		} else if !strings.HasPrefix(a.name, "xmlns:") {
			if _, _, err := s.resolve(a.name); err != nil {
				return err
			}
		}
	}
	if s.src[s.pos] == '/' {
		s.pos++
		if s.pos >= len(s.src) {
			return errEOF
		}
		if s.src[s.pos] != '>' {
			return fmt.Errorf("%w: a / in a tag", errSyntax)
		}
		s.close()
	}
	s.pos++
	return nil
}

func (s *scanner) close() {
	s.out.end()
	s.nDecl = s.base[s.out.depth]
}

func (s *scanner) resolve(name string) (space, local string, err error) {
	prefix, local, ok := strings.Cut(name, ":")
	if !ok {
		prefix, local = "", name
	}
	for i := s.nDecl - 1; i >= 0; i-- {
		if s.decls[i].prefix == prefix {
			return s.decls[i].uri, local, nil
		}
	}
	switch prefix {
	case "":
		return "", local, nil
	case "xml":
		return xmlNS, local, nil
	}
	return "", "", fmt.Errorf("%w: prefix %q is not declared", errSyntax, cut(prefix, 40))
}

func (s *scanner) attr() (attr, error) {
	name, err := s.name()
	if err != nil {
		return attr{}, err
	}
	s.skipSpace()
	if s.pos >= len(s.src) || s.src[s.pos] != '=' {
		return attr{}, fmt.Errorf("%w: an attribute without a value", errSyntax)
	}
	s.pos++
	s.skipSpace()
	if s.pos >= len(s.src) {
		return attr{}, errEOF
	}
	q := s.src[s.pos]
	if q != '"' && q != '\'' {
		return attr{}, fmt.Errorf("%w: an attribute's value without quotes", errSyntax)
	}
	end := strings.IndexByte(s.src[s.pos+1:], q)
	if end < 0 {
		return attr{}, errEOF
	}
	raw := s.src[s.pos+1 : s.pos+1+end]
	if strings.IndexByte(raw, '<') >= 0 {
		return attr{}, fmt.Errorf("%w: < in an attribute's value", errSyntax)
	}
	value, err := unescape(raw, true)
	if err != nil {
		return attr{}, err
	}
	s.pos += end + 2
	return attr{name, value}, nil
}

func (s *scanner) endTag() error {
	if s.out.depth == 0 {
		return fmt.Errorf("%w: an end without a start", errSyntax)
	}
	s.pos += 2
	name, err := s.name()
	if err != nil {
		return err
	}
	if name != s.open[s.out.depth-1] {
		return fmt.Errorf("%w: <%s> ends as </%s>", errSyntax, cut(s.open[s.out.depth-1], 40), cut(name, 40))
	}
	s.skipSpace()
	if s.pos >= len(s.src) {
		return errEOF
	}
	if s.src[s.pos] != '>' {
		return fmt.Errorf("%w: an end tag with more than a name", errSyntax)
	}
	s.pos++
	s.close()
	return nil
}

func (s *scanner) text() error {
	end := strings.IndexByte(s.src[s.pos:], '<')
	if end < 0 {
		return errEOF
	}
	raw := s.src[s.pos : s.pos+end]
	if strings.Contains(raw, "]]>") {
		return fmt.Errorf("%w: ]]> in text", errSyntax)
	}
	text, err := unescape(raw, s.out.wantsText())
	if err != nil {
		return err
	}
	if s.out.wantsText() {
		s.out.text(text)
	}
	s.pos += end
	return nil
}

func (s *scanner) cdata() error {
	start := s.pos + len("<![CDATA[")
	end := strings.Index(s.src[start:], "]]>")
	if end < 0 {
		return errEOF
	}
	if s.out.wantsText() {
		s.out.text(newlines(s.src[start : start+end]))
	}
	s.pos = start + end + len("]]>")
	return nil
}

// newlines is XML's end-of-line handling.
func newlines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// unescape replaces references, and checks them even if the result is not wanted.
func unescape(s string, wanted bool) (string, error) {
	s = newlines(s)
	amp := strings.IndexByte(s, '&')
	if amp < 0 {
		return s, nil
	}
	var b strings.Builder
	for {
		if wanted {
			b.WriteString(s[:amp])
		}
		s = s[amp+1:]
		semi := strings.IndexByte(s[:min(len(s), 12)], ';')
		if semi < 0 {
			return "", fmt.Errorf("%w: a bare &", errSyntax)
		}
		r, err := reference(s[:semi])
		if err != nil {
			return "", err
		}
		if wanted {
			b.WriteRune(r)
		}
		s = s[semi+1:]
		if amp = strings.IndexByte(s, '&'); amp < 0 {
			if wanted {
				b.WriteString(s)
			}
			return b.String(), nil
		}
	}
}

func reference(name string) (rune, error) {
	switch name {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	digits, ok := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	r := rune(n)
	if !ok || err != nil || n > utf8.MaxRune || !utf8.ValidRune(r) || r == 0xfffe || r == 0xffff ||
		r < ' ' && r != '\t' && r != '\n' && r != '\r' {
		return 0, fmt.Errorf("%w: a reference that XMPP does not allow", errSyntax)
	}
	return r, nil
}
