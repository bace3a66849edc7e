package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// serverLog is the server's own log, on the host's.
type serverLog struct {
	to *slog.Logger

	mu    sync.Mutex
	wrong []string // the last that went wrong
}

func (l *serverLog) say(level slog.Level, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
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
func (l *serverLog) Fatalf(format string, v ...any)  { l.say(slog.LevelError, format, v...) }
func (l *serverLog) Debugf(string, ...any)           {}
func (l *serverLog) Tracef(string, ...any)           {}
