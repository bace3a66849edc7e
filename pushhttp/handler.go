package pushhttp

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/xmpp-push/push"
)

// Engine is what the pages need of a [push.Engine].
type Engine interface {
	Handle(ctx context.Context, ev push.Event) (push.Decision, error)
	Inspect(ctx context.Context, account string) (push.AccountStatus, error)
	Services() []push.ServiceStatus
}

// Config is what the pages need. Engine is required, and so is Authorize unless LoopbackDevelopment is set.
type Config struct {
	Engine Engine
	// History is what the pages tell of. Nil: they only show the present state.
	History *History
	// Cluster is the node that the server is, for a page about it. Nil: the server is one alone.
	Cluster Cluster
	// Authorize says who makes a request and whether they may. It is asked for every request, style sheet included; those with method POST
	// act on devices. The operator's name goes into the audit record.
	Authorize func(r *http.Request) (operator string, ok bool)
	// LoopbackDevelopment lets anybody in who comes from this machine, to a name of this machine, and not through a proxy. It is for a developer's
	// own machine and nothing else. It is ignored if Authorize is set.
	LoopbackDevelopment bool
	// ReadOnly leaves the actions out.
	ReadOnly bool
	// Audit is told of each action. It goes to the Logger too.
	Audit func(Action)
	// Logger gets a record an action, at level info. Nil means none.
	Logger *slog.Logger
	// Pseudonyms shows JIDs of users as stable pseudonyms, as long as the Handler lives. An operator who knows a JID can look it up.
	Pseudonyms bool
	// Now is the time that the pages go by. Nil: the present, by the clock of the Engine that the History is of. For a History that was made of a recording it is the recording's last.
	Now func() time.Time
}

// Handler serves the pages, under any prefix that ends with a slash. It can be used at once by many.
type Handler struct {
	cfg   Config
	cross *http.CrossOriginProtection
	names pseudonyms
	start string // tells the ETags of one Handler from those of another
	// wall is this machine's clock. Nil: the pages do not go by the present.
	wall func() time.Time
}

//go:embed pages.html style.css script.js icon.svg
var files embed.FS

// New returns the pages, or what is wrong with cfg.
func New(cfg Config) (*Handler, error) {
	if cfg.Engine == nil {
		return nil, errors.New("pushhttp: Config.Engine is nil")
	}
	if cfg.Authorize == nil && !cfg.LoopbackDevelopment {
		return nil, errors.New("pushhttp: Config.Authorize is nil: the pages show who talks to whom, so give a function that says who may see them")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Handler{cfg: cfg, cross: http.NewCrossOriginProtection(), names: newPseudonyms(), start: rand.Text()[:8]}
	if cfg.Now == nil {
		p.wall, p.cfg.Now = time.Now, time.Now
		if cfg.History != nil {
			p.cfg.Now = cfg.History.now
		}
	}
	return p, nil
}

// skew is by how much this machine's clock is ahead of the one that the pages go by: an Engine's goes on evenly from its start, and the machine's may have been
// set since, or have stood still while the machine slept. What is less than two seconds is none.
func (p *Handler) skew() time.Duration {
	if p.wall == nil {
		return 0
	}
	if d := p.wall().Round(0).Sub(p.cfg.Now()).Round(time.Second); d.Abs() >= 2*time.Second {
		return d
	}
	return 0
}

// authorized says who makes a request.
func (p *Handler) authorized(r *http.Request) (string, bool) {
	if p.cfg.Authorize != nil {
		return p.cfg.Authorize(r)
	}
	return "developer", p.cfg.LoopbackDevelopment && fromLoopback(r)
}

// fromLoopback tells whether a request comes from this machine, was meant for it (a web site can make a browser send requests to it under the
// site's own name), and was not passed on.
func fromLoopback(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	to, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && to.Unmap().IsLoopback()
}

const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP serves a page by the last part of the path, so that it need not know the prefix.
func (p *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // JIDs are in addresses
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	operator, ok := p.authorized(r)
	if !ok {
		http.Error(w, "Refused: you are not authorized to see this.", http.StatusForbidden)
		return
	}
	_, name := path.Split(r.URL.Path)
	switch r.Method {
	case http.MethodPost:
		if err := p.cross.Check(r); err != nil {
			http.Error(w, "Refused: the request came from another site.", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		p.act(w, r, operator, name)
		return
	case http.MethodGet, http.MethodHead:
	default:
		h.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "Only GET, HEAD and POST.", http.StatusMethodNotAllowed)
		return
	}
	if len(r.URL.RawQuery) > 16<<10 {
		http.Error(w, "The address is too long.", http.StatusRequestURITooLong)
		return
	}
	switch name {
	case "":
		p.overview(w, r, operator)
	case "find":
		p.find(w, r, operator)
	case "account":
		p.account(w, r, operator)
	case "story":
		p.story(w, r, operator)
	case "session":
		p.session(w, r, operator)
	case "service":
		p.service(w, r, operator)
	case "services", "accounts", "devices":
		p.list(w, r, operator, name)
	case "cluster":
		p.clusterPage(w, r, operator)
	case "trace":
		p.trace(w, r)
	case "style.css", "script.js", "icon.svg":
		http.ServeFileFS(w, r, files, name)
	default:
		p.fail(w, r, http.StatusNotFound, operator, "There is no such page.", nil)
	}
}

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"time": timeTag, "day": day, "stamp": stampTag, "span": span, "times": plural, "name": name, "long": longName, "to": to, "visible": visible, "wordy": sentence.html,
}).ParseFS(files, "pages.html"))

// timeTag is a time of day, with all of it for the script, which shows it in the viewer's zone, and in the title.
func timeTag(t time.Time) template.HTML {
	return template.HTML(`<time datetime="` + t.UTC().Format("2006-01-02T15:04:05.000Z07:00") + `" data-as="time">` + clock(t) + `</time>`)
}

// stampTag is a time with its day, unless that is today.
func stampTag(t time.Time) template.HTML {
	text := clock(t)
	if day(t) != day(time.Now()) {
		text = t.UTC().Format("2 Jan ") + text
	}
	return template.HTML(`<time datetime="` + t.UTC().Format("2006-01-02T15:04:05.000Z07:00") + `" data-as="stamp">` + text + `</time>`)
}

// html is a sentence on a page.
func (s sentence) html() template.HTML {
	var b strings.Builder
	for _, p := range s {
		switch {
		case !p.At.IsZero():
			b.WriteString(string(stampTag(p.At)))
		case p.Name != "":
			b.WriteString(string(name(p.Name)))
		default:
			b.WriteString(template.HTMLEscapeString(p.Text))
		}
	}
	return template.HTML(b.String())
}

// page is what every page has.
type page struct {
	Title     string    `json:"title"`
	Operator  string    `json:"-"`
	Page      string    `json:"page"` // the template
	Live      bool      `json:"-"`    // it follows what happens
	NoHistory bool      `json:"no_history,omitempty"`
	CanAct    bool      `json:"-"`
	InCluster bool      `json:"-"` // there is a page about it
	Asked     string    `json:"-"` // what was looked up
	Now       time.Time `json:"at"`
	// Clock says that times are not those of this machine's clock.
	Clock string `json:"clock,omitempty"`
}

func (p *Handler) page(title, name, operator string) page {
	clock := ""
	switch skew := p.skew(); {
	case skew > 0:
		clock = "This machine’s clock was set forward by " + skew.String() + " since the server was started, or the machine slept. Times here are by the old clock, that much earlier. What is looked up is by the new one. A restart of the server ends this."
	case skew < 0:
		clock = "This machine’s clock was set back by " + skew.Abs().String() + " since the server was started. Times here are by the old clock, that much later. What is looked up is by the new one. A restart of the server ends this."
	}
	return page{Clock: clock, Title: title, Page: name, Operator: operator, NoHistory: p.cfg.History == nil, CanAct: !p.cfg.ReadOnly, InCluster: p.cfg.Cluster != nil, Now: p.cfg.Now().UTC()}
}

// wantsJSON tells whether the page is asked for as data.
func wantsJSON(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		switch kind, _, _ := strings.Cut(strings.TrimSpace(part), ";"); kind {
		case "application/json":
			return true
		case "text/html", "*/*":
			return false
		}
	}
	return false
}

// unchanged answers that a page is the same as the asker has it, if it is. seq is what the page changes with.
func (p *Handler) unchanged(w http.ResponseWriter, r *http.Request, seq uint64) bool {
	tag := fmt.Sprintf(`"%s-%d-%t"`, p.start, seq, wantsJSON(r))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") != tag {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

func (p *Handler) redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// render writes a page. It is made whole first, so that an error is not half a page.
func (p *Handler) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	h := w.Header()
	h.Add("Vary", "Accept")
	var err error
	if wantsJSON(r) {
		h.Set("Content-Type", "application/json")
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		err = enc.Encode(data)
	} else {
		h.Set("Content-Type", "text/html; charset=utf-8")
		err = pages.ExecuteTemplate(&b, name, data)
	}
	if err != nil {
		p.cfg.Logger.Error("pushhttp: page not made", slog.String("page", name), slog.Any("error", err))
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// messagePage says what is wrong, and what may have been meant.
type messagePage struct {
	page
	What string `json:"error"`
	Near []link `json:"near,omitempty"`
}

func (p *Handler) fail(w http.ResponseWriter, r *http.Request, status int, operator, what string, near []link) {
	title := http.StatusText(status)
	if status == http.StatusNotFound {
		title = "Not found"
	}
	v := messagePage{p.page(title, "message", operator), what, near}
	v.Asked = r.FormValue("q") + r.FormValue("jid")
	p.render(w, r, status, "message", &v)
}
