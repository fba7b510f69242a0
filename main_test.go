// Tests of the whole program, as its users start it. Each testdata/script/*.txtar runs the test binary under the
// name gopassivedns, in an empty directory and environment; $PCAP is testdata/pcap. "go test -update" rewrites
// the expected output in scripts, golden files and the README.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite golden files, expected output of scripts, and the README's tables")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gopassivedns": main})
}

func TestScripts(t *testing.T) {
	captures, err := filepath.Abs("testdata/pcap")
	if err != nil {
		t.Fatalf("find testdata/pcap: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PCAP", captures)
			return nil
		},
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// readmeSection returns the README's text between the markers of a section, and what stands before and after it.
func readmeSection(t *testing.T, name string) (before, section, after string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatalf("read the README: %v", err)
	}
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->\n"
	before, rest, ok := strings.Cut(string(text), begin)
	section, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("the README has no markers %q and %q", begin, end)
	}
	return before + begin, section, end + after
}

// checkReadme compares a section of the README with what it should be, and rewrites it with -update.
func checkReadme(t *testing.T, name, want string) {
	t.Helper()
	before, got, after := readmeSection(t, name)
	switch {
	case got == want:
	case *update:
		if err := os.WriteFile("README.md", []byte(before+want+after), 0o644); err != nil {
			t.Fatalf("write the README: %v", err)
		}
	default:
		t.Errorf("the README's section %q is out of date (-update rewrites it)\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

// recordsOf runs the program on a capture and returns its lines. A damaged capture's exit code is not looked at.
func recordsOf(t *testing.T, capture string, args ...string) [][]byte {
	t.Helper()
	cmd := exec.Command("gopassivedns", append([]string{"-env_file=", "-name=demo", "-pcap", capture}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PDNS_") })
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("%s: %v", cmd, err)
	}
	return bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
}

func TestReadmeDemo(t *testing.T) {
	lines := recordsOf(t, "testdata/pcap/demo.pcap")
	if len(lines) < 3 {
		t.Fatalf("the demo has %d records, want 3 or more", len(lines))
	}
	checkReadme(t, "demo", fmt.Sprintf("```json\n%s\n```\n", bytes.Join(lines[:3], []byte("\n"))))
}

// TestReadmeRecords runs all captures: each record's fields must be in the README's record table, in its order and with
// its types, those that are never absent must be there, and each field must be in some record.
func TestReadmeRecords(t *testing.T) {
	type field struct {
		name, kind string
		always     bool
		seen       bool
	}
	var table []field
	_, section, _ := readmeSection(t, "records")
	for row := range strings.Lines(section) {
		cells := strings.Split(row, " | ")
		name, ok := strings.CutPrefix(cells[0], "| `")
		if !ok {
			continue
		}
		absent := cells[len(cells)-1]
		// level is absent until a flag sets it.
		f := field{name: strings.TrimSuffix(name, "`"), kind: cells[1], always: strings.HasPrefix(absent, "never")}
		f.seen = f.name == "level"
		table = append(table, f)
	}

	captures, err := filepath.Glob("testdata/pcap/*.pcap")
	if err != nil || len(captures) == 0 {
		t.Fatalf("no captures in testdata/pcap (%v)", err)
	}
	for _, capture := range captures {
		for _, line := range recordsOf(t, capture, "-sections=answer,authority,additional") {
			if len(line) == 0 {
				continue
			}
			at := -1
			present := make(map[string]bool)
			keys, kinds := fieldsOf(t, line)
			for i, key := range keys {
				present[key] = true
				next := slices.IndexFunc(table, func(f field) bool { return f.name == key })
				switch {
				case next < 0:
					t.Fatalf("%s: field %q is not in the README: %s", capture, key, line)
				case next <= at:
					t.Fatalf("%s: field %q stands elsewhere in the README: %s", capture, key, line)
				case table[next].kind != kinds[i]:
					t.Fatalf("%s: field %q is of type %s, the README says %s: %s", capture, key, kinds[i], table[next].kind, line)
				}
				at = next
				table[at].seen = true
			}
			for _, f := range table {
				if f.always && !present[f.name] {
					t.Fatalf("%s: field %q is absent: %s", capture, f.name, line)
				}
			}
		}
	}
	for _, f := range table {
		if !f.seen {
			t.Errorf("no capture has a record with field %q", f.name)
		}
	}
}

// fieldsOf returns the names of a JSON object's fields in order, and their types in the README's words.
func fieldsOf(t *testing.T, line []byte) (names, kinds []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		t.Fatalf("not JSON: %v: %q", err, line)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatalf("not JSON: %v: %q", err, line)
		}
		var value any
		if err := d.Decode(&value); err != nil {
			t.Fatalf("not JSON: %v: %q", err, line)
		}
		kind := fmt.Sprintf("%T", value)
		switch v := value.(type) {
		case json.Number:
			if _, err := v.Int64(); err == nil {
				kind = "int"
			}
		case []any:
			kind = "array"
		}
		names, kinds = append(names, fmt.Sprint(name)), append(kinds, kind)
	}
	return names, kinds
}
