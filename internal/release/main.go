// Command release makes what a release of all modules of the repository is: versions that require each other, without replace lines, which only
// the repository's own builds need.
//
//	release -proxy DIR v0.1.0    a module proxy in the file system, as it would be if v0.1.0 were tagged now
//	release -tag v0.1.0          a commit beside the branch with these go.mod files, and a tag for each module; nothing is pushed
//
// All modules have one version. It works on what is committed. scripts/release calls it, and its test builds an outsider's program against the proxy.
package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"
)

func main() {
	proxy := flag.String("proxy", "", "make a module proxy in this `folder`")
	tag := flag.Bool("tag", false, "make the release's commit and its tags")
	flag.Parse()
	if err := run(*proxy, *tag, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(proxy string, tag bool, version string) error {
	if proxy == "" && !tag || flag.NArg() > 1 {
		return errors.New("want -proxy DIR or -tag, and a version")
	}
	if semver.Canonical(version) != version || version == "" || semver.Major(version) != "v0" && semver.Major(version) != "v1" {
		return fmt.Errorf("%q is not a version such as v0.1.0 (from v2 on, import paths change)", version)
	}
	top, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if err := os.Chdir(top); err != nil {
		return err
	}
	if tag {
		if err := ready(version); err != nil {
			return err
		}
		if proxy == "" {
			if proxy, err = os.MkdirTemp("", "proxy"); err != nil {
				return err
			}
			defer os.RemoveAll(proxy)
		}
	}
	tree, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := forget(version); err != nil {
		return err
	}
	if err := checkout(tree); err != nil {
		return err
	}
	ms, err := modules(tree)
	if err != nil {
		return err
	}
	if proxy, err = filepath.Abs(proxy); err != nil {
		return err
	}
	for _, m := range ms {
		if err := m.release(proxy, version, ms); err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		fmt.Println(m.path, version)
	}
	if !tag {
		return nil
	}
	return tagAll(tree, version, ms)
}

// ready says what is missing before a version can be tagged.
func ready(version string) error {
	var errs []error
	if status, err := git("status", "--porcelain"); err != nil || status != "" {
		errs = append(errs, errors.New("there are changes that are not committed"))
	}
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil || !bytes.Contains(changes, []byte("\n## "+version)) {
		errs = append(errs, fmt.Errorf("CHANGELOG.md has no section %q", "## "+version))
	}
	tags, err := git("tag", "--list", "v*")
	if err != nil {
		errs = append(errs, err)
	}
	for t := range strings.FieldsSeq(tags) {
		if semver.Compare(t, version) >= 0 {
			errs = append(errs, fmt.Errorf("%s is there already, and not older", t))
		}
	}
	return errors.Join(errs...)
}

// checkout writes what is committed into a folder.
func checkout(dir string) error {
	out, err := exec.Command("git", "archive", "--format=tar", "HEAD").Output()
	if err != nil {
		return err
	}
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(name, 0o755)
		case tar.TypeReg:
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, b, os.FileMode(h.Mode)&0o755)
			}
		}
		if err != nil {
			return err
		}
	}
}

// mod is a module of the repository.
type mod struct {
	dir, path, sub string // sub is its folder in the repository, "." for the root
	file           *modfile.File
}

// needs returns the siblings that a module requires.
func (m *mod) needs(ms []*mod) (siblings []*mod) {
	for _, r := range m.file.Require {
		for _, s := range ms {
			if s.path == r.Mod.Path {
				siblings = append(siblings, s)
			}
		}
	}
	return siblings
}

// modules returns the modules of a tree, each after those that it needs.
func modules(tree string) ([]*mod, error) {
	var ms []*mod
	err := filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "go.mod" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := modfile.Parse(path, b, nil)
		if err != nil {
			return err
		}
		sub, err := filepath.Rel(tree, filepath.Dir(path))
		ms = append(ms, &mod{dir: filepath.Dir(path), path: f.Module.Mod.Path, sub: filepath.ToSlash(sub), file: f})
		return err
	})
	if err != nil {
		return nil, err
	}
	var sorted []*mod
	for len(sorted) < len(ms) {
		before := len(sorted)
		for _, m := range ms {
			if !slices.Contains(sorted, m) && !slices.ContainsFunc(m.needs(ms), func(s *mod) bool { return !slices.Contains(sorted, s) }) {
				sorted = append(sorted, m)
			}
		}
		if len(sorted) == before {
			return nil, errors.New("modules require each other in a circle")
		}
	}
	return sorted, nil
}

// release gives a module the go.mod and go.sum of a release, and adds it to the proxy.
func (m *mod) release(proxy, version string, ms []*mod) error {
	if err := module.Check(m.path, version); err != nil {
		return err
	}
	for _, s := range m.needs(ms) {
		if err := m.file.AddRequire(s.path, version); err != nil {
			return err
		}
	}
	for _, s := range ms {
		if err := m.file.DropReplace(s.path, ""); err != nil {
			return err
		}
	}
	m.file.Cleanup()
	if len(m.file.Replace) > 0 {
		return fmt.Errorf("go.mod replaces %s, which an outsider's build would not", m.file.Replace[0].Old.Path)
	}
	b, err := m.file.Format()
	if err != nil {
		return err
	}
	file := filepath.Join(m.dir, "go.mod")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return err
	}
	// The hashes of the siblings' releases.
	tidy := exec.Command("go", "mod", "tidy")
	tidy.Dir = m.dir
	tidy.Env = Env(proxy)
	if out, err := tidy.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod tidy: %w\n%s", err, out)
	}
	if b, err = os.ReadFile(file); err != nil {
		return err
	}
	escaped, err := module.EscapePath(m.path)
	if err != nil {
		return err
	}
	at := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := zip.CreateFromDir(&archive, module.Version{Path: m.path, Version: version}, m.dir); err != nil {
		return err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{version, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{version + ".mod": b, version + ".zip": archive.Bytes(), version + ".info": info, "list": []byte(version + "\n")} {
		if err := os.WriteFile(filepath.Join(at, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Env is an environment in which the go command takes modules from the proxy first, and from where it usually does after that. The release's own modules
// have no checksums in the public database yet. The build cache's index of a version is not used: it may be that of an earlier try, whose code was another.
func Env(proxy string) []string {
	usual, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		usual = []byte("direct")
	}
	return append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GONOSUMDB=github.com/xmpp-push/*", "GONOPROXY=none", "GOPRIVATE=", "GODEBUG=goindex=0",
		"GOPROXY=file://"+proxy+","+strings.TrimSpace(string(usual)))
}

// forget removes a version of the repository's modules from the module cache, where an earlier try may have left another code of that version.
func forget(version string) error {
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return err
	}
	cache := strings.TrimSpace(string(out))
	const ours = "github.com/xmpp-push"
	var found []string
	for _, root := range []string{filepath.Join(cache, ours), filepath.Join(cache, "cache", "download", ours)} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			switch {
			case errors.Is(err, os.ErrNotExist) && path == root:
				return filepath.SkipAll
			case err != nil:
				return err
			case d.IsDir() && strings.HasSuffix(path, "@"+version):
				found = append(found, path)
				return filepath.SkipDir
			case !d.IsDir() && strings.HasPrefix(d.Name(), version+"."):
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, path := range found {
		err := filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(path, 0o700) // modules in the cache are for reading only
			}
			return err
		})
		if err := errors.Join(err, os.RemoveAll(path)); err != nil {
			return err
		}
	}
	return nil
}

// tagAll commits the changed files beside the branch, and tags that commit for each module.
func tagAll(tree, version string, ms []*mod) error {
	index, err := os.CreateTemp("", "index")
	if err != nil {
		return err
	}
	index.Close()
	os.Remove(index.Name()) // git wants to make it
	defer os.Remove(index.Name())
	in := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+index.Name())
		return output(cmd)
	}
	if _, err := in("read-tree", "HEAD"); err != nil {
		return err
	}
	for _, m := range ms {
		for _, name := range []string{"go.mod", "go.sum"} {
			path := filepath.Join(m.dir, name)
			if _, err := os.Stat(path); err != nil {
				continue // a module without dependencies
			}
			blob, err := git("hash-object", "-w", path)
			if err != nil {
				return err
			}
			inTree := name
			if m.sub != "." {
				inTree = m.sub + "/" + name
			}
			if _, err := in("update-index", "--add", "--cacheinfo", "100644,"+blob+","+inTree); err != nil {
				return err
			}
		}
	}
	written, err := in("write-tree")
	if err != nil {
		return err
	}
	commit, err := git("commit-tree", written, "-p", "HEAD", "-m", "release "+version)
	if err != nil {
		return err
	}
	for _, m := range ms {
		name := version
		if m.sub != "." {
			name = m.sub + "/" + version
		}
		if _, err := git("tag", "-a", name, commit, "-m", m.path+" "+version); err != nil {
			return err
		}
	}
	fmt.Println("tagged", commit, "- look at it, then push the tags:  git push origin", version, "'refs/tags/*/"+version+"'")
	return nil
}

func git(args ...string) (string, error) { return output(exec.Command("git", args...)) }

func output(cmd *exec.Cmd) (string, error) {
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, &errs)
	}
	return strings.TrimSpace(string(out)), nil
}
