// Command pushreplay replays a trace of an XMPP server and explains who would have been notified of what, when, and why.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/xmpp-push/push/trace"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("pushreplay", flag.ContinueOnError)
	fs.SetOutput(stderr)
	format := fs.String("format", "text", "`text` for people or json, one object a line")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	in := stdin
	if fs.NArg() > 0 {
		f, err := os.Open(fs.Arg(0))
		if err != nil {
			fmt.Fprintln(stderr, "pushreplay:", err)
			return 2
		}
		defer f.Close()
		in = f
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()
	_ = format
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	r := trace.NewReplay(func(l *trace.Line) { enc.Encode(l) })
	err := r.Run(trace.NewReader(in))
	r.Finish()
	if !errors.Is(err, io.EOF) {
		out.Flush()
		fmt.Fprintln(stderr, "pushreplay:", err)
		return 2
	}
	return 0
}
