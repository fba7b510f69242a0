package main

// log.go says things to the user: warnings and errors on stderr, one line each; with -debug, what the program does as
// JSON lines on stdout, where records are JSON lines, too.

import (
	"fmt"
	"io"
	"sync"
)

// userLog implements logger. Safe for several goroutines.
type userLog struct {
	mu     sync.Mutex
	stderr io.Writer
	debug  io.Writer // nil without -debug
}

func (l *userLog) line(kind, format string, args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.stderr, "gopassivedns: "+kind+format+"\n", args...)
}

func (l *userLog) warnf(format string, args ...any)  { l.line("warning: ", format, args) }
func (l *userLog) errorf(format string, args ...any) { l.line("", format, args) }

// block writes text of several lines in one piece.
func (l *userLog) block(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.stderr.Write(text)
}

// debugf writes one JSON line in a single write, so that it never lands inside a record.
func (l *userLog) debugf(format string, args ...any) {
	if l.debug == nil {
		return
	}
	b := appendJSONText([]byte(`{"level":"debug","msg":"`), fmt.Sprintf(format, args...))
	b = append(b, "\"}\n"...)
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.debug.Write(b) // stdout's own sink reports that it is closed
}
