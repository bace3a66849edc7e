package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// serverLog is the server's own log, on the host's.
type serverLog struct {
	to *slog.Logger

	once  sync.Once
	fatal chan struct{} // closed when it cannot go on

	mu    sync.Mutex
	wrong []string       // the last that went wrong
	often map[string]int // what it said since, without numbers
	since time.Time
}

// An error of a server that others do not let in comes every second, for each of them. It is logged some times a minute, and else at level debug.
const (
	oftenEnough = 5
	oftenFor    = time.Minute
)

// tooOften tells whether the like of it was said often enough. l.mu is held.
func (l *serverLog) tooOften(text string) bool {
	kind := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
	if now := time.Now(); l.often == nil || now.Sub(l.since) >= oftenFor || len(l.often) >= 1000 {
		l.often, l.since = make(map[string]int), now
	}
	l.often[kind]++
	return l.often[kind] > oftenEnough
}

func (l *serverLog) say(level slog.Level, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if strings.HasPrefix(text, "Plaintext passwords detected") { // Config.Secret is one
		level = slog.LevelDebug
	}
	if level >= slog.LevelWarn {
		l.mu.Lock()
		if l.tooOften(text) {
			level = slog.LevelDebug
		}
		l.mu.Unlock()
	}
	l.to.LogAttrs(context.Background(), level, "nats: "+text)
	if level < slog.LevelWarn {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) >= 8 {
		l.wrong = l.wrong[1:]
	}
	l.wrong = append(l.wrong, text)
}

// said is what went wrong lately, for an error.
func (l *serverLog) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) == 0 {
		return ""
	}
	return "; it said: " + strings.Join(l.wrong, "; ")
}

func (l *serverLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v...) }
func (l *serverLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v...) }
func (l *serverLog) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v...) }
func (l *serverLog) Fatalf(format string, v ...any) {
	l.say(slog.LevelError, format, v...)
	l.once.Do(func() { close(l.fatal) })
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}
