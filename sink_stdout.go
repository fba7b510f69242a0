package main

// Lines to stdout (or any writer), as they are, no copy. A short write goes on where it
// stopped, so a full disk behind a redirection tears no line once there is room again. When the
// reader has closed its end (gopassivedns | head) the sink ends with errSinkClosed.
//
// Go kills a process that writes to a broken pipe on descriptor 1 unless SIGPIPE is ignored
// or caught: main does that.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// stdoutSink is a sink on a writer that it does not own and does not close.
type stdoutSink struct {
	w     io.Writer
	cur   *batch // the batch of an unfinished write
	off   int    // bytes of cur that are written
	lines uint64 // whole lines written
}

// newStdoutSink returns a sink that writes to w.
func newStdoutSink(w io.Writer) *stdoutSink { return &stdoutSink{w: w} }

func (s *stdoutSink) name() string { return "stdout" }

func (s *stdoutSink) write(b *batch) error {
	if s.cur != b {
		s.cur, s.off = b, 0
	}
	from := b.lineAt(s.off)
	for s.off < len(b.json) {
		n, err := s.w.Write(b.json[s.off:])
		s.off += n
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			s.lines += uint64(b.lineAt(s.off) - from)
			switch {
			case errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe):
				return errSinkClosed
			case errors.Is(err, syscall.EBADF):
				return sinkFatal{fmt.Errorf("write: %w", err)}
			}
			return fmt.Errorf("write: %w", err)
		}
	}
	s.lines += uint64(b.records() - from)
	s.cur = nil
	return nil
}

func (s *stdoutSink) tally() sinkTally { return sinkTally{delivered: s.lines} }

// close has nothing to do: every write went out at once.
func (s *stdoutSink) close(context.Context) error { return nil }
