package pushhttp

import (
	"fmt"
	"html/template"
	"strings"
	"unicode"
)

// How text of strangers is put on a page: apart from what surrounds it, so that it cannot turn that around (bidi), without what cannot be seen, and
// shortened, with all of it in a title.

// maxName is how many characters of a name are shown.
const maxName = 44

// visible makes seen what a name hides: characters that control the direction of text, have no width, or are no text at all, are shown by their
// numbers, and no more than two marks are piled on one character.
func visible(s string) string {
	plain := true
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	var b strings.Builder
	marks := 0
	for _, r := range s {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
			if marks++; marks > 2 {
				continue
			}
			b.WriteRune(r)
			continue
		case r == ' ' || unicode.IsGraphic(r) && !unicode.Is(unicode.Zs, r) && !fillers[r]:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		}
		marks = 0
	}
	return b.String()
}

// fillers are letters that look like nothing.
var fillers = map[rune]bool{0x115f: true, 0x1160: true, 0x3164: true, 0xffa0: true, 0x2800: true}

// short cuts the middle out of a long name.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n*2/3]) + "…" + string(r[len(r)-n/3+1:])
}

// name is a name of a stranger as HTML.
func name(s string) template.HTML { return nameOf(s, maxName) }

// longName is one with more room.
func longName(s string) template.HTML { return nameOf(s, 2*maxName) }

func nameOf(s string, n int) template.HTML {
	v := visible(s)
	cut := short(v, n)
	title := ""
	if cut != v {
		title = ` title="` + template.HTMLEscapeString(v) + `"`
	}
	return template.HTML(`<bdi` + title + `>` + template.HTMLEscapeString(cut) + `</bdi>`)
}
