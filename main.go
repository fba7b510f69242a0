// The program around the rooms: it reads the configuration, prints what the user asked for, and exits.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program without the process around it. It returns the exit code.
func run(_ context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parseConfig(args, os.LookupEnv)
	var usage *usageError
	if errors.As(err, &usage) {
		usage.print(stderr)
		return 2
	}
	switch {
	case cfg.showHelp:
		writeHelp(stdout)
		return 0
	case cfg.showVersion:
		fmt.Fprintf(stdout, "gopassivedns %s\n", version)
		return 0
	}
	for _, warning := range cfg.warnings {
		fmt.Fprintf(stderr, "gopassivedns: %s\n", warning)
	}
	return 0
}
