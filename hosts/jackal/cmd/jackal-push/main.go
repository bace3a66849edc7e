// Command jackal-push is jackal, the XMPP server, with push notifications.
//
//	jackal-push -config example.yaml
//
// The file is one of jackal's own (see config/example.config.yaml there) with one more section, push. Users are added with jackal's
// own jackalctl, while the server runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-kit/log/level"
	"github.com/kkyr/fig"
	jackalserver "github.com/ortuman/jackal/pkg/jackal"
	jackallog "github.com/ortuman/jackal/pkg/log"
	"github.com/xmpp-push/push"
	pushjackal "github.com/xmpp-push/push/hosts/jackal"
	sqlstore "github.com/xmpp-push/push/store/sql"
	"github.com/xmpp-push/push/store/sql/sqlite"
	"github.com/xmpp-push/push/trace"
)

// pushConfig is the configuration file's section push.
type pushConfig struct {
	// Registrations is the file that registrations are kept in, an SQLite database. Without it they are gone after a restart.
	Registrations string `fig:"registrations"`
	// Trace is a directory to record what happens in, for pushreplay.
	Trace string `fig:"trace"`

	AckRequest    time.Duration `fig:"ack_request"`
	AckDelay      time.Duration `fig:"ack_delay"`
	HibernateTime time.Duration `fig:"hibernate_time"`
	MaxResume     time.Duration `fig:"max_resume"`
	IncludeSender bool          `fig:"include_sender"`
	IncludeBody   bool          `fig:"include_body"`
}

func main() {
	file := flag.String("config", "", "configuration `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *file); err != nil {
		fmt.Fprintln(os.Stderr, "jackal-push:", err)
		os.Exit(1)
	}
}

// run runs a server until ctx is done.
func run(ctx context.Context, file string) error {
	cfg, own, err := load(file)
	if err != nil {
		return err
	}
	log := jackallog.NewDefaultLogger(cfg.Logger.Level, cfg.Logger.Format)
	policy := push.Policy{MaxResume: own.MaxResume, IncludeSender: own.IncludeSender, IncludeBody: own.IncludeBody}
	pc := pushjackal.Config{
		Push:          push.Config{Policy: policy},
		AckRequest:    own.AckRequest,
		AckDelay:      own.AckDelay,
		HibernateTime: own.HibernateTime,
	}
	if own.Registrations != "" {
		store, closer, err := openStore(ctx, own.Registrations)
		if err != nil {
			return err
		}
		defer closer.Close()
		pc.Push.Store = store
	}
	if own.Trace != "" {
		recorder, err := trace.NewRecorder(trace.RecorderConfig{Dir: own.Trace})
		if err != nil {
			return err
		}
		defer recorder.Close()
		pc.Push.Observer = recorder.Observer()
	}
	s, err := newServer(cfg, pc, log)
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	level.Info(log).Log("msg", "jackal with push is running")
	<-ctx.Done()
	level.Info(log).Log("msg", "stopping")
	last, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.Stop(last)
}

// load reads the configuration file, of which each half takes what it knows.
func load(file string) (jackalserver.Config, pushConfig, error) {
	var cfg jackalserver.Config
	var own struct {
		Push pushConfig `fig:"push"`
	}
	if file == "" {
		return cfg, own.Push, errors.New("no configuration file; use -config FILE")
	}
	where := []fig.Option{fig.File(filepath.Base(file)), fig.Dirs(filepath.Dir(file)), fig.UseEnv("jackal")}
	err := errors.Join(fig.Load(&cfg, where...), fig.Load(&own, where...))
	return cfg, own.Push, err
}

// openStore opens the registrations.
func openStore(ctx context.Context, file string) (push.Store, io.Closer, error) {
	db, err := sqlite.Open(file)
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlstore.Open(ctx, db, sqlstore.SQLite, nil)
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return store, db, nil
}
