package peer

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Prosody is a real Prosody with mod_cloud_notify, to compare with. It runs until Stop.
type Prosody struct {
	Clients, Components string // addresses
	cmd                 *exec.Cmd
	dir                 string
}

// ErrNoProsody: the programs are not there. On Debian: apt-get install prosody prosody-modules.
var ErrNoProsody = errors.New("prosody with mod_cloud_notify; on Debian: apt-get install prosody prosody-modules")

const cloudNotify = "/usr/lib/prosody/modules/mod_cloud_notify"

// StartProsody starts Prosody on free ports of loopback, with a component and accounts that have one password. Settings are added to the
// configuration. Everything it writes is in a folder of its own, which Stop removes.
func StartProsody(component, secret, password, settings string, users ...string) (*Prosody, error) {
	program, err := exec.LookPath("prosody")
	if err != nil {
		return nil, ErrNoProsody
	}
	if _, err := os.Stat(cloudNotify); err != nil {
		return nil, ErrNoProsody
	}
	dir, err := os.MkdirTemp("", "prosody")
	if err != nil {
		return nil, err
	}
	p := &Prosody{dir: dir}
	accounts := filepath.Join(dir, "data", "localhost", "accounts")
	if err := os.MkdirAll(accounts, 0o700); err != nil {
		return nil, err
	}
	for _, u := range users {
		// File names are encoded as in URLs, with every sign that is not a letter or digit.
		name := strings.ReplaceAll(u, "-", "%2d")
		if err := os.WriteFile(filepath.Join(accounts, name+".dat"), fmt.Appendf(nil, "return { [\"password\"] = %q; };\n", password), 0o600); err != nil {
			return nil, err
		}
	}
	if p.Clients, err = FreePort(); err != nil {
		return nil, err
	}
	if p.Components, err = FreePort(); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`
run_as_root = true
data_path = %q
log = { { levels = { min = "warn" }, to = "file", filename = %q } }
interfaces = { "127.0.0.1" }
c2s_ports = { %s }
component_interfaces = { "127.0.0.1" }
component_ports = { %s }
modules_enabled = { "roster", "saslauth", "disco", "ping", "smacks", "carbons", "mam", "csi_simple", "offline", "cloud_notify" }
modules_disabled = { "s2s", "tls" }
plugin_paths = { "/usr/lib/prosody/modules" }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = { accounts = "internal" }
default_archive_policy = true
%s
VirtualHost "localhost"
Component %q
	component_secret = %q
`, filepath.Join(dir, "data"), filepath.Join(dir, "log"), port(p.Clients), port(p.Components), settings, component, secret)
	file := filepath.Join(dir, "prosody.cfg.lua")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, "-F", "--config", file)
	p.cmd.Dir = dir
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		if conn, err := net.Dial("tcp", p.Components); err == nil {
			conn.Close()
			if conn, err = net.Dial("tcp", p.Clients); err == nil {
				conn.Close()
				return p, nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	log := p.Log()
	p.Stop()
	return nil, fmt.Errorf("prosody does not come up: %s", log)
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// FreePort returns an address at which another program may listen. It is none of those that operating systems give to connections, which may take such a port
// before that program does.
func FreePort() (addr string, err error) {
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10000+rand.IntN(20000))); err == nil {
			l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", err
}

// Log returns what Prosody complained about.
func (p *Prosody) Log() string {
	f, err := os.Open(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 1<<16))
	return string(b)
}

// PID is its process.
func (p *Prosody) PID() int { return p.cmd.Process.Pid }

// Stop ends it.
func (p *Prosody) Stop() {
	p.cmd.Process.Signal(os.Interrupt)
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-done
	}
	os.RemoveAll(p.dir)
}
