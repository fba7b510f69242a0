// This file: the records themselves. What enters: the binary's stdout, on a pipe. What leaves: the counts, which must
// be the generator's, and the digest, which must not depend on the number of workers.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	"gopassivedns/testdata/bench/truth"
)

// piped runs the binary and gives its stdout to read.
func piped(ctx context.Context, bin string, args []string, read func(io.Reader) error) error {
	var stderr bytes.Buffer
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := read(out)
	if readErr != nil {
		cancel() // it must not wait for a reader that has left
	}
	if err := cmd.Wait(); err != nil && readErr == nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return readErr
}

// compare counts the records of a capture.
func compare(ctx context.Context, bin string, cp *capture) (missed []string, err error) {
	got := truth.New()
	err = piped(ctx, bin, []string{"-pcap", cp.path}, func(r io.Reader) error { return count(r, &got.Seen) })
	var bad *badRecord
	if errors.As(err, &bad) {
		return []string{fmt.Sprintf("%s: %v", cp.name, bad)}, nil
	}
	if err != nil {
		return nil, err
	}
	for l := range strings.Lines(cp.truth.Diff(&got.Seen)) {
		missed = append(missed, cp.name+": "+strings.TrimSpace(l))
	}
	if len(missed) == 0 {
		fmt.Printf("%s: %d lookups and %d records, as the truth has them\n", cp.name, got.LookupsTotal, got.RecordsTotal)
	}
	return missed, nil
}

// badRecord is a line that breaks the contract.
type badRecord struct {
	line int
	text string
	why  string
}

func (e *badRecord) Error() string { return fmt.Sprintf("line %d: %s: %.300s", e.line, e.why, e.text) }

// record is what is counted of a line. Two lines of one lookup are equal but for the type.
type record struct {
	lookup
	atype string
}

type lookup struct {
	tstamp, src, sport, dst, dport, protocol, q, status string
	id, elapsed, attempts, responseBytes, queryBytes    int64
}

// count adds up the records. Neighbouring lines that agree in everything but the RR are one lookup.
func count(r io.Reader, s *truth.Seen) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 1<<20), 64<<20)
	var last lookup
	var types []string
	flush := func() {
		if types == nil {
			return
		}
		if types[0] == "" {
			types = types[:0]
		}
		s.Add(last.status, last.protocol == "tcp", types)
		s.ElapsedNs += last.elapsed
		s.ResponseBytes += last.responseBytes
		s.QueryBytes += last.queryBytes
		if last.attempts > 1 {
			s.Retried++
		}
	}
	n := 0
	for lines.Scan() {
		n++
		rec, why := parse(lines.Bytes())
		if why != "" {
			return &badRecord{n, lines.Text(), why}
		}
		if types == nil || rec.lookup != last {
			flush()
			last, types = rec.lookup, types[:0]
		} else if rec.atype == "" || types[0] == "" {
			return &badRecord{n, lines.Text(), "a second line of a lookup without an RR"}
		}
		types = append(types, rec.atype)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	flush()
	return nil
}

// parse takes a line apart; why is "" if it is right. Searching for `"name":` is safe in valid JSON: inside a string
// the quotes are escaped.
func parse(line []byte) (r record, why string) {
	if !json.Valid(line) {
		return r, "not JSON"
	}
	text := func(name string) string {
		i := bytes.Index(line, []byte(`"`+name+`":"`))
		if i < 0 {
			why = "no " + name
			return ""
		}
		v := line[i+len(name)+4:]
		return string(v[:max(0, bytes.IndexByte(v, '"'))]) // none of these has a quote in it but q, where a part is enough
	}
	number := func(name string, absent int64) int64 {
		i := bytes.Index(line, []byte(`"`+name+`":`))
		if i < 0 {
			return absent
		}
		v := line[i+len(name)+3:]
		end := bytes.IndexAny(v, ",}")
		n, err := strconv.ParseInt(string(v[:end]), 10, 64)
		if err != nil {
			why = name + " is no integer"
		}
		return n
	}
	r.tstamp, r.src, r.sport, r.dst, r.dport = text("tstamp"), text("src"), text("sport"), text("dst"), text("dport")
	r.protocol, r.q, r.status, r.atype = text("protocol"), text("q"), text("status"), text("atype")
	r.id, r.elapsed, r.attempts = number("query_id", 0), number("elapsed", 0), number("attempts", 1)
	r.responseBytes, r.queryBytes = number("bytes", 0), number("qbytes", 0)
	return r, why
}

// sameBytes compares the output of different numbers of workers.
func sameBytes(ctx context.Context, bin string, cp *capture) (missed []string, err error) {
	want := ""
	for _, workers := range []string{"1", "2", "3", "8", "13"} {
		for range 3 {
			h := sha256.New()
			err := piped(ctx, bin, []string{"-pcap", cp.path, "-numprocs", workers}, func(r io.Reader) error {
				_, err := io.Copy(h, r)
				return err
			})
			if err != nil {
				return nil, err
			}
			got := fmt.Sprintf("%x", h.Sum(nil))
			if want == "" {
				want = got
			}
			if got != want {
				missed = append(missed, fmt.Sprintf("%s: a run with -numprocs %s wrote sha256 %.16s, the first run with 1 wrote %.16s", cp.name, workers, got, want))
			}
		}
	}
	if len(missed) == 0 {
		fmt.Printf("%s: the same bytes with 1, 2, 3, 8 and 13 workers, three times each, sha256 %.16s\n", cp.name, want)
	}
	return missed, nil
}
