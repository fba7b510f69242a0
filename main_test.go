// Tests of the whole program, as its users start it. Each testdata/script/*.txtar runs the test binary under the
// name gopassivedns, in an empty directory and environment; $PCAP is testdata/pcap. "go test -update" rewrites
// the expected output in scripts, golden files and the README.
package main

import (
	"flag"
	"path/filepath"
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
