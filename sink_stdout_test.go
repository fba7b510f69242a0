package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// shortWriter takes at most n bytes a call and fails every other call.
type shortWriter struct {
	bytes.Buffer
	n, calls int
}

func (w *shortWriter) Write(p []byte) (int, error) {
	w.calls++
	n, _ := w.Buffer.Write(p[:min(w.n, len(p))])
	if n < len(p) && w.calls%2 == 0 {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestStdoutGoesOnAfterErrors(t *testing.T) {
	w := &shortWriter{n: 100}
	s := newStdoutSink(w)
	bs, want := testBatches(0, 20, 10)
	for _, b := range bs {
		for {
			err := s.write(b)
			if got, want := s.tally().delivered, uint64(bytes.Count(w.Bytes(), []byte("\n"))); got != want {
				t.Fatalf("%d lines delivered, %d counted", want, got)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(w.Bytes(), want) {
		t.Error("lines differ")
	}
}

func TestStdoutReaderCloses(t *testing.T) {
	defer noLeaks(t)()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	log := &sinkLog{}
	q := newSinkQueue(newStdoutSink(w), sinkOptions{queueBytes: 1 << 20, block: true, log: log})
	bs, want := testBatches(0, 1000, 100)
	q.submit(bs[0])
	got := make([]byte, len(bs[0].json))
	for n := 0; n < len(got); {
		m, err := r.Read(got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	r.Close()
	for _, b := range bs[1:] {
		q.submit(b)
	}
	<-q.done()
	if err := q.drain(t.Context()); err != nil || !errors.Is(q.err(), errSinkClosed) {
		t.Errorf("got %v and %v", err, q.err())
	}
	if !bytes.HasPrefix(want, got) {
		t.Error("lines differ")
	}
	st := balanced(t, q)
	if st.written < 100 || st.failed != 0 || st.dropped == 0 || len(log.said()) != 0 {
		t.Errorf("got %+v, said %q", st, log.said())
	}
}

func TestStdoutClosed(t *testing.T) {
	signal.Ignore(syscall.SIGPIPE)
	f := os.NewFile(987654, "stdout")
	q := newSinkQueue(newStdoutSink(f), sinkOptions{queueBytes: 1 << 20, block: true, log: &sinkLog{}})
	b := testBatch(testLine(1))
	q.submit(b)
	<-q.done()
	if err := q.drain(t.Context()); !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v", err)
	}
}

// A reader that does not read must not hold up the end for longer than the drain's limit.
func TestStdoutReaderStopsReading(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	q := newSinkQueue(newStdoutSink(w), sinkOptions{queueBytes: 1 << 20, log: &sinkLog{}})
	bs, _ := testBatches(0, 10000, 1000)
	for _, b := range bs {
		q.submit(b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := q.drain(ctx); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	st := balanced(t, q)
	if st.written+st.failed+st.dropped != 10000 || st.failed == 0 {
		t.Errorf("got %+v", st)
	}
	r.Close() // lets the goroutine go
	<-q.finished
}
