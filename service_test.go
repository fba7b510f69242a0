package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	unitFile = "packaging/systemd/gopassivedns.service"
	envFile  = "packaging/systemd/gopassivedns.env"
)

// unitDefaults are the variables that the service's env file sets: with them it captures something and keeps it.
var unitDefaults = map[string]string{"PDNS_DEV": "any", "PDNS_QUIET": "true", "PDNS_LOG_FILE": "/var/log/gopassivedns/dns.log"}

// TestGoldenEnvFile: the service's env file has every variable, with what it means.
func TestGoldenEnvFile(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What gopassivedns.service runs with. A variable that begins with # has its default, which is shown.\n" +
		"# \"systemctl restart gopassivedns\" after a change. Single quotes around a value keep a $ in it as it is.\n")
	group := ""
	for _, o := range optionTable() {
		if o.env == "" || o.flag == "env_file" {
			continue
		}
		if o.group != group {
			group = o.group
			fmt.Fprintf(&b, "\n## %s\n", group)
		}
		value := o.def
		if o.derived != nil {
			value = ""
		}
		if strings.ContainsAny(value, " $") {
			value = "'" + value + "'"
		}
		mark := "#"
		if set, ok := unitDefaults[o.env]; ok {
			mark, value = "", set
		}
		b.WriteString("\n# ")
		column := 2
		for i, word := range strings.Fields(o.meaning) {
			if i > 0 && column+1+len(word) > 100 {
				b.WriteString("\n# ")
				column = 2
			} else if i > 0 {
				b.WriteString(" ")
				column++
			}
			b.WriteString(word)
			column += len(word)
		}
		fmt.Fprintf(&b, "\n%s%s=%s\n", mark, o.env, value)
	}
	if *update {
		if err := os.WriteFile(envFile, []byte(b.String()), 0o644); err != nil {
			t.Fatalf("%v", err)
		}
	}
	got, err := os.ReadFile(envFile)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if string(got) != b.String() {
		t.Errorf("%s is out of date (-update rewrites it)", envFile)
	}
	// It is valid as it is, and with every variable set.
	for _, text := range []string{string(got), strings.ReplaceAll(string(got), "\n#PDNS_", "\nPDNS_")} {
		file := filepath.Join(t.TempDir(), "env")
		text = strings.Replace(text, "\nPDNS_PCAP_FILE=\n", "\n", 1)
		text = strings.Replace(text, "\nPDNS_NAME=\n", "\n", 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatalf("%v", err)
		}
		c, err := parseConfig([]string{"-env_file", file}, func(string) (string, bool) { return "", false })
		if err != nil {
			t.Errorf("the env file is not valid: %v", err)
			continue
		}
		if !slices.Equal(c.devs, []string{"any"}) || !c.quiet || c.logFile != unitDefaults["PDNS_LOG_FILE"] || len(c.warnings) > 0 {
			t.Errorf("the env file means %+v", c)
		}
	}
}

// TestUnitExposure: systemd rates the unit's sandbox 2.0 or better, where systemd-analyze is installed.
func TestUnitExposure(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", unitFile).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// TestInstall installs into a directory and takes everything back; a changed env file stays.
func TestInstall(t *testing.T) {
	bin, err := exec.LookPath("gopassivedns")
	if err != nil {
		t.Fatalf("find the program: %v", err)
	}
	dest := t.TempDir()
	run := func(target string) {
		t.Helper()
		out, err := exec.Command("make", "-s", target, "DESTDIR="+dest, "PREFIX=/usr", "BIN="+filepath.Base(bin), "TAGS=").CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
	}
	if _, err := os.Stat("gopassivedns"); err != nil {
		if err := os.Symlink(bin, "gopassivedns"); err != nil {
			t.Fatalf("%v", err)
		}
		t.Cleanup(func() { os.Remove("gopassivedns") })
	}
	files := func() []string {
		t.Helper()
		var names []string
		err := filepath.WalkDir(dest, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, strings.TrimPrefix(path, dest))
			}
			return err
		})
		if err != nil {
			t.Fatalf("%v", err)
		}
		return names
	}
	run("install")
	got, want := files(), []string{"/etc/gopassivedns/gopassivedns.env", "/usr/bin/gopassivedns", "/usr/lib/systemd/system/gopassivedns.service"}
	if !slices.Equal(got, want) {
		t.Errorf("make install: got %q, want %q", got, want)
	}
	unit, err := os.ReadFile(filepath.Join(dest, want[2]))
	if err != nil || !strings.Contains(string(unit), "\nExecStart=/usr/bin/gopassivedns -env_file=/etc/gopassivedns/gopassivedns.env\n") {
		t.Errorf("the installed unit (%v):\n%s", err, unit)
	}
	changed := []byte("PDNS_DEV=lo\n")
	if err := os.WriteFile(filepath.Join(dest, want[0]), changed, 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	run("install")
	if text, err := os.ReadFile(filepath.Join(dest, want[0])); err != nil || string(text) != string(changed) {
		t.Errorf("the second make install changed the env file: %q, %v", text, err)
	}
	run("uninstall")
	if got := files(); !slices.Equal(got, want[:1]) {
		t.Errorf("make uninstall leaves %q, want %q", got, want[:1])
	}
}

// TestBeat: the watchdog hears of the program only as long as there is progress.
func TestBeat(t *testing.T) {
	var progress, alive atomic.Uint64
	end, done := make(chan struct{}), make(chan struct{})
	asked := make(chan struct{})
	go func() {
		defer close(done)
		beat(time.Millisecond, func() uint64 {
			select {
			case asked <- struct{}{}:
			case <-end:
			}
			return progress.Load()
		}, func() { alive.Add(1) }, end)
	}()
	<-asked // the value that it begins with
	for range 3 {
		<-asked // none of these sees progress
	}
	progress.Store(7)
	for alive.Load() == 0 {
		<-asked
	}
	for range 3 {
		<-asked
	}
	if n := alive.Load(); n != 1 {
		t.Errorf("alive %d times after one step, want 1", n)
	}
	close(end)
	<-done
}
