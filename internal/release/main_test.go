package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const version = "v0.99.0"

// long skips a test where the long ones are not wanted, and leaves nothing of it in the module cache.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("PUSH_TEST_FULL") != "1" {
		t.Skip("takes half a minute; PUSH_TEST_FULL=1 runs it")
	}
	t.Cleanup(func() {
		if err := forget(version); err != nil {
			t.Error(err)
		}
	})
}

// TestOutsider builds programs outside of the repository against what the release would be: no workspace, no replace lines.
func TestOutsider(t *testing.T) {
	long(t)
	proxy := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if err := run(proxy, false, version); err != nil {
		t.Fatal(err)
	}
	if err := os.Chdir(here); err != nil { // run goes to the top
		t.Fatal(err)
	}
	dir := t.TempDir()
	do := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(Env(proxy), "GOBIN="+filepath.Join(dir, "bin"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	program, err := os.ReadFile("testdata/outsider.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), program, 0o644); err != nil {
		t.Fatal(err)
	}
	do("go", "mod", "init", "example.com/outsider")
	do("go", "get", "github.com/xmpp-push/push@"+version, "github.com/xmpp-push/push/store/sql@"+version, "github.com/xmpp-push/push/metrics/prometheus@"+version)
	do("go", "mod", "tidy")
	if out := do("go", "run", "."); !strings.Contains(out, "notified: true") {
		t.Errorf("it said %s", out)
	}
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(gomod, []byte("replace")) || strings.Count(string(gomod), version) != 3 {
		t.Errorf("its go.mod:\n%s", gomod)
	}
	// Commands are installed by version, which a replace line would forbid.
	do("go", "install", "github.com/xmpp-push/push/cmd/pushreplay@"+version)
	do("go", "install", "github.com/xmpp-push/push/store/sql/cmd/pushstore@"+version)
}

// TestTag makes the commit and the tags of a release in a copy of the repository.
func TestTag(t *testing.T) {
	long(t)
	top, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	for _, args := range [][]string{
		{"clone", "-q", "--shared", top, copied},
		{"-C", copied, "config", "user.name", "release test"},
		{"-C", copied, "config", "user.email", "release@test.invalid"},
	} {
		if _, err := git(args...); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(copied)
	if err := run("", true, version); err == nil || !strings.Contains(err.Error(), "CHANGELOG.md has no section") {
		t.Fatalf("without a section in the changelog: %v", err)
	}
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("CHANGELOG.md", append(changes, "\n## "+version+"\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := git("commit", "-qam", "changelog"); err != nil {
		t.Fatal(err)
	}
	if err := run("", true, version); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{version, "store/sql/" + version, "metrics/otel/" + version} {
		gomod, err := git("show", tag+":store/sql/go.mod")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(gomod, "replace") || !strings.Contains(gomod, "github.com/xmpp-push/push "+version) {
			t.Errorf("at %s:\n%s", tag, gomod)
		}
	}
	if branch, err := git("show", "HEAD:store/sql/go.mod"); err != nil || !strings.Contains(branch, "replace") {
		t.Errorf("the branch changed: %v", err)
	}
	if err := run("", true, version); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("the same version again: %v", err)
	}
}
