package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gopassivedns/testdata/bench/wire"
)

// runCapture runs the program on captures, with more flags, and returns its output and exit code.
func runCapture(t testing.TB, stdin io.Reader, capture string, flags ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"-env_file=", "-name=test", "-pcap", capture}, flags...), stdin, &out, &errs)
	return out.String(), errs.String(), code
}

// captureFile writes a capture into a directory of the test's.
func captureFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// pipelineRun is what came out of a pipeline.
type pipelineRun struct {
	lines string
	snap  *snapshot
	err   error // of reading
}

// throughPipeline reads a capture with a pipeline of its own and checks the account.
func throughPipeline(t testing.TB, cfg config, file []byte) pipelineRun {
	t.Helper()
	s := newFakeSink()
	q := newSinkQueue(s, sinkOptions{queueBytes: blockQueueMB << 20, block: true, log: &sinkLog{}})
	p := newPipeline(&cfg, []*sinkQueue{q}, false, nil)
	err := readCapture(p.feeder, "x", bytes.NewReader(file), nil)
	p.finish()
	if err := q.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	snap := p.acct.snapshot()
	if err := snap.check(); err != nil {
		t.Fatalf("%d workers: %v", cfg.numProcs, err)
	}
	return pipelineRun{s.got.String(), snap, err}
}

func pipelineConfig(workers int) config {
	c := defaultConfig()
	c.name, c.numProcs = "test", workers
	return c
}

// odd counts of workers, and the default.
var workerCounts = []int{1, 2, 3, 8, 13}

// testCaptures returns the names of the captures in testdata/pcap.
func testCaptures(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/pcap/*.pcap*")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures in testdata/pcap: %v", err)
	}
	return names
}

// firstDifference shows where two outputs part.
func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d\n%s\nand\n%s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(x), len(y))
}

// TestSameForAnyWorkers: the same bytes come out for any number of workers, every time.
func TestSameForAnyWorkers(t *testing.T) {
	times := 10
	if testing.Short() {
		times = 1
	}
	for _, name := range testCaptures(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			file, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, layout := range []recordLayout{layoutRR, layoutLookup} {
				want := ""
				for i := range times {
					for _, n := range workerCounts {
						c := pipelineConfig(n)
						c.layout, c.sections = layout, wantAnswer|wantAuthority|wantAdditional
						got := throughPipeline(t, c, file).lines
						if i == 0 && n == 1 {
							want = got
						} else if got != want {
							t.Fatalf("%d workers, run %d: another output than of one worker: %s", n, i+1, firstDifference(want, got))
						}
					}
				}
			}
		})
	}
}

// clockTricks changes the times of a capture: back and forth, and far away.
func clockTricks(seed uint64, pkts []capPacket) []capPacket {
	r := rand.New(rand.NewPCG(seed, 1))
	shift := int64(0)
	out := slices.Clone(pkts)
	for i := range out {
		switch r.IntN(60) {
		case 0:
			shift = r.Int64N(600e9) - 300e9
		case 1:
			shift = 0
		case 2:
			shift += 120e9
		case 3:
			out[i].ts = 0
			continue
		}
		out[i].ts += shift
		if r.IntN(100) == 0 {
			out[i].ts = 4294967295e9 // 2106, the end of classic pcap
		}
	}
	return out
}

func TestSameForAnyWorkersGenerated(t *testing.T) {
	traffic := sampleTraffic(7, 4000)
	for name, pkts := range map[string][]capPacket{"steady clock": traffic, "jumping clock": clockTricks(7, traffic)} {
		want := ""
		for _, n := range workerCounts {
			c := pipelineConfig(n)
			c.gcAge, c.gcInterval = 2*time.Second, 5*time.Second
			got := throughPipeline(t, c, pcapLE(pkts))
			if got.err != nil {
				t.Fatal(got.err)
			}
			if n == 1 {
				want = got.lines
				if strings.Count(want, "\n") < 4000 {
					t.Fatalf("%s: only %d records", name, strings.Count(want, "\n"))
				}
			} else if got.lines != want {
				t.Errorf("%s, %d workers: another output than of one worker: %s", name, n, firstDifference(want, got.lines))
			}
		}
	}
}

// TestSameForAnyFile: a capture gives the same bytes in every format, from a pipe, and in pieces.
func TestSameForAnyFile(t *testing.T) {
	pkts := sampleTraffic(3, 2000)
	for i := range pkts {
		pkts[i].ts = pkts[i].ts / 1000 * 1000
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	plain := pcapLE(pkts)
	ng := &ngFile{}
	ng.section(binary.BigEndian)
	ng.iface(linkEthernet, 0)
	for _, p := range pkts {
		ng.packet(0, uint64(p.ts/1000), p.data, len(p.data))
	}
	want, stderr, code := runCapture(t, nil, write("plain", plain))
	if code != exitOK || strings.Count(want, "\n") < 2000 {
		t.Fatalf("exit code %d, %d records: %s", code, strings.Count(want, "\n"), stderr)
	}
	// Ten files, whose names are not in their order, some compressed, all in a directory.
	for i := range 10 {
		part := pcapLE(pkts[len(pkts)*i/10 : len(pkts)*(i+1)/10])
		if i%3 == 1 {
			part = compressGzip(t, part)
		}
		write(fmt.Sprintf("split/%d", (i*7+3)%10), part)
	}
	write("split/no packets", pcapLE(nil))
	tests := []struct {
		name, capture string
		stdin         io.Reader
	}{
		{"big-endian µs", write("be", classicCapture(binary.BigEndian, magicMicro, 4, linkEthernet, pkts)), nil},
		{"Kuznetzov", write("kuznetzov", classicCapture(binary.LittleEndian, magicKuznetzov, 4, linkEthernet, pkts)), nil},
		{"pcapng", write("ng", ng.b), nil},
		{"gzip", write("gz", compressGzip(t, plain)), nil},
		{"zstd", write("zst", compressZstd(t, ng.b)), nil},
		{"stdin", "-", &oddReader{b: plain}},
		{"stdin pcapng", "-", &oddReader{b: ng.b}},
		{"stdin zstd", "-", &oddReader{b: compressZstd(t, plain)}},
		{"directory", filepath.Join(dir, "split"), nil},
		{"pattern", filepath.Join(dir, "spli?/*"), nil},
		{"list", filepath.Join(dir, "split/[0-4]") + "," + filepath.Join(dir, "split/[5-9]"), nil},
	}
	for _, tt := range tests {
		if got, stderr, code := runCapture(t, tt.stdin, tt.capture); got != want || code != exitOK {
			t.Errorf("%s: exit code %d, another output: %s\n%s", tt.name, code, firstDifference(want, got), stderr)
		}
	}
}

// TestDamagedAmongOthers: a damaged file of several is read up to the damage, and the others whole.
func TestDamagedAmongOthers(t *testing.T) {
	pkts := sampleTraffic(3, 300)
	dir := t.TempDir()
	for i := range 3 {
		b := pcapLE(pkts[len(pkts)*i/3 : len(pkts)*(i+1)/3])
		if i < 2 {
			b = append(b, 1, 2, 3)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	whole, _, _ := runCapture(t, nil, captureFile(t, "whole", pcapLE(pkts)))
	got, stderr, code := runCapture(t, nil, dir)
	if got != whole || code != exitFailure || strings.Count(stderr, "truncated") != 2 {
		t.Errorf("exit code %d, %s\n%s", code, firstDifference(whole, got), stderr)
	}
}

// bigAnswer is a TXT answer of nearly 64 KiB to a query, over TCP, and a small lookup that another worker sees meanwhile.
func bigAnswers(n, rrs, text int) []capPacket {
	var pkts []capPacket
	for i := range n {
		client, server := sampleHost(2*i), sampleHost(5000)
		name := wire.AppendName(nil, fmt.Sprintf("big%d.test", i))
		var q, a wire.Msg
		q.Begin(uint16(i), 0x0100, name, wire.TypeTXT)
		a.Begin(uint16(i), 0x8180, name, wire.TypeTXT)
		for k := range rrs {
			a.Pointer(wire.QnameAt)
			a.RR(wire.Answer, wire.TypeTXT, uint32(k))
			a.Text(strings.Repeat("\x01", text))
			a.End()
		}
		ts := int64(1700000000e9) + int64(i)*1e6
		conn := &wire.Conn{Ends: [2]*wire.Host{client, server}, Ports: [2]uint16{uint16(2000 + i), 53}, Seq: [2]uint32{1, 1}}
		framed := func(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
		pkts = append(pkts, capPacket{ts: ts, data: slices.Clone(conn.AppendFrame(nil, wire.Client, wire.SYN, nil, 1))},
			capPacket{ts: ts + 1, data: slices.Clone(conn.AppendFrame(nil, wire.Server, wire.SYN|wire.ACK, nil, 1))},
			capPacket{ts: ts + 2, data: slices.Clone(conn.AppendFrame(nil, wire.Client, wire.ACK, framed(q.B), 2))})
		body := framed(a.B)
		for off := 0; off < len(body); off += 30000 {
			pkts = append(pkts, capPacket{ts: ts + 3, data: slices.Clone(conn.AppendFrame(nil, wire.Server, wire.ACK, body[off:min(len(body), off+30000)], 3))})
		}
	}
	return pkts
}

// TestLargeLookups: the lines of a lookup that are more than a part holds stay together, for any number of workers.
func TestLargeLookups(t *testing.T) {
	pkts := bigAnswers(20, 250, 240)
	file := pcapLE(pkts)
	want := ""
	for _, n := range workerCounts {
		got := throughPipeline(t, pipelineConfig(n), file)
		if n == 1 {
			want = got.lines
			last, seen := "", map[string]bool{}
			for line := range strings.Lines(want) {
				_, rest, _ := strings.Cut(line, `"query_id":`)
				id, _, _ := strings.Cut(rest, ",")
				if id != last && seen[id] {
					t.Fatalf("lookup %s: its lines are not together", id)
				}
				last, seen[id] = id, true
			}
			if len(seen) != 20 || strings.Count(want, "\n") != 20*250 {
				t.Fatalf("%d lookups, %d lines, want 20 and 5000", len(seen), strings.Count(want, "\n"))
			}
		} else if got.lines != want {
			t.Errorf("%d workers: another output than of one: %s", n, firstDifference(want, got.lines))
		}
	}
}

// TestSlowSink: a sink that does not write makes the capture wait, and all is written when it goes on.
func TestSlowSink(t *testing.T) {
	defer noLeaks(t)()
	file := pcapLE(bigAnswers(60, 250, 240))
	want := throughPipeline(t, pipelineConfig(3), file).lines
	s := newFakeSink()
	s.gate = make(chan struct{})
	q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: &sinkLog{}})
	c := pipelineConfig(3)
	p := newPipeline(&c, []*sinkQueue{q}, false, nil)
	read := make(chan error, 1)
	go func() {
		err := readCapture(p.feeder, "x", bytes.NewReader(file), nil)
		p.finish()
		read <- err
	}()
	waitFor(t, "the sink's queue to be full", func() bool {
		st := q.stats()
		return st.queuedBytes > 1<<19
	})
	select {
	case <-read:
		t.Error("the capture was read although nothing was written")
	default:
	}
	close(s.gate)
	if err := <-read; err != nil {
		t.Error(err)
	}
	if err := q.drain(t.Context()); err != nil {
		t.Error(err)
	}
	if s.got.String() != want {
		t.Errorf("another output: %s", firstDifference(want, s.got.String()))
	}
}

// TestDeadSink: a sink that never writes holds up the end no longer than it may; what is lost is counted.
func TestDeadSink(t *testing.T) {
	defer noLeaks(t)()
	file := pcapLE(bigAnswers(60, 250, 240))
	s := newFakeSink()
	s.fail = func(int) error { return errors.New("no receiver") }
	q := newSinkQueue(s, sinkOptions{queueBytes: 1 << 20, block: true, log: &sinkLog{}})
	c := pipelineConfig(3)
	stop := make(chan struct{})
	p := newPipeline(&c, []*sinkQueue{q}, false, stop)
	ctx, giveUp := context.WithCancel(t.Context())
	defer q.limit(ctx)()
	read := make(chan struct{})
	go func() {
		_ = readCapture(p.feeder, "x", bytes.NewReader(file), nil)
		p.finish()
		close(read)
	}()
	waitFor(t, "the sink's queue to be full", func() bool { return q.stats().queuedBytes > 1<<19 })
	close(stop)
	giveUp()
	<-read
	if err := q.drain(ctx); err == nil {
		t.Error("no error of the sink")
	}
	snap := p.acct.snapshot()
	if err := snap.check(); err != nil {
		t.Error(err)
	}
	if st := q.stats(); st.failed == 0 || st.failed != st.submitted-st.written-st.dropped {
		t.Errorf("%+v", st)
	}
}

// TestStopWhileReading: the program ends in order when it is told to, and what was read is written.
func TestStopWhileReading(t *testing.T) {
	defer noLeaks(t)()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-env_file=", "-pcap", "-"}, r, &out, &errs)
		r.Close()
	}()
	if _, err := w.Write(pcapLE(sampleTraffic(1, 50))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(nil); err != nil { // the reader has taken what came before
		t.Fatal(err)
	}
	cancel()
	if c := <-code; c != exitOK || strings.Contains(errs.String(), "gopassivedns:") {
		t.Errorf("exit code %d: %s", c, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %q", line)
		}
	}
}

// bombMessage is the answer that expands most: as many RRs as fit, each owner a pointer to the longest name of bytes that
// are written as escapes.
func bombMessage(id uint16) []byte {
	var name []byte
	for range 3 {
		name = append(append(name, 63), bytes.Repeat([]byte{0}, 63)...)
	}
	name = append(append(append(name, 61), bytes.Repeat([]byte{0}, 61)...), 0)
	m := &wire.Msg{}
	m.Begin(id, 0x8180, name, wire.TypeNS)
	for len(m.B) < 65000 {
		m.Pointer(wire.QnameAt)
		m.RR(wire.Answer, wire.TypeNS, 1)
		m.Pointer(wire.QnameAt)
		m.End()
	}
	return m.B
}

// TestProfile: go tool pprof opens what -cpuprofile writes.
func TestProfile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cpu.prof")
	_, stderr, code := runCapture(t, nil, "testdata/pcap/demo.pcap", "-quiet", "-cpuprofile", name)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	out, err := exec.Command("go", "tool", "pprof", "-top", name).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Type: cpu")) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestExpansionIsBounded: messages that expand two hundred times do not fill the memory, in either layout.
func TestExpansionIsBounded(t *testing.T) {
	var pkts []capPacket
	for i := range 40 {
		pkts = append(pkts, capPacket{ts: int64(i) * 1e6, data: wire.AppendUDPFrame(nil, sampleHost(1000), sampleHost(2*i), 53, 1234, bombMessage(uint16(i)), 1, true)})
	}
	name := captureFile(t, "bombs", classicCapture(binary.LittleEndian, magicNano, 4, linkEthernet, pkts))
	for _, layout := range []string{"rr", "lookup"} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var count countingWriter
		code := run(t.Context(), []string{"-env_file=", "-layout", layout, "-pcap", name}, nil, &count, io.Discard)
		runtime.ReadMemStats(&after)
		grown := int64(after.Sys-before.Sys) >> 20
		t.Logf("%s: %d MB written, %d MB more memory", layout, count>>20, grown)
		if code != exitOK || count < 100<<20 {
			t.Errorf("%s: exit code %d, %d bytes", layout, code, count)
		}
		// A worker holds one line of 11 MB at most, and as much again while it grows; the collector lets garbage
		// be twice of that.
		if limit := int64(600); grown > limit {
			t.Errorf("%s: memory grew by %d MB, want at most %d", layout, grown, limit)
		}
	}
}

type countingWriter uint64

func (c *countingWriter) Write(p []byte) (int, error) {
	*c += countingWriter(len(p))
	return len(p), nil
}
