package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// discardSink takes everything.
type discardSink struct{ lines bytes.Buffer }

func (s *discardSink) write(b *batch) error {
	s.lines.Write(b.json)
	return nil
}
func (s *discardSink) close(context.Context) error { return nil }
func (s *discardSink) name() string                { return "discard" }

// checkAccount fails the test where an equation of the account does not hold.
func checkAccount(t *testing.T, s *snapshot) {
	t.Helper()
	if err := s.check(); err != nil {
		t.Error(err)
	}
}

// auditAccount makes the pipeline check its account at the end of every chunk. It returns the number of chunks checked
// and must be called before the pipeline gets its first packet.
func auditAccount(t *testing.T, p *pipeline) *atomic.Int64 {
	chunks := new(atomic.Int64)
	p.acct.audit = func(s *snapshot) {
		if err := s.check(); err != nil && chunks.Load() >= 0 {
			t.Errorf("chunk %d: %v", chunks.Load(), err)
			chunks.Store(-1 << 40) // once is enough
		}
		chunks.Add(1)
	}
	return chunks
}

// testConfig parses args as the program does, without an env file.
func testConfig(t testing.TB, args ...string) *config {
	t.Helper()
	cfg, err := parseConfig(append([]string{"-env_file=", "-name=test"}, args...), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// replay runs a capture through a pipeline with one sink, audits its account, and returns the last snapshot and the
// lines. A capture that ends in an error is replayed up to there.
func replay(t *testing.T, args ...string) (*snapshot, string) {
	t.Helper()
	cfg := testConfig(t, args...)
	out := new(discardSink)
	log := &userLog{stderr: new(bytes.Buffer)}
	queues := []*sinkQueue{newSinkQueue(out, sinkOptions{queueBytes: blockQueueMB << 20, block: true, log: log})}
	p := newPipeline(cfg, queues, false, make(chan struct{}))
	chunks := auditAccount(t, p)
	if err := readCaptures(p.feeder, []string{cfg.pcap}, nil, log); err != nil {
		t.Logf("%s: %v", cfg.pcap, err)
	}
	p.finish()
	if err := queues[0].drain(context.Background()); err != nil {
		t.Error(err)
	}
	s := p.acct.snapshot()
	checkAccount(t, s)
	if got, want := uint64(chunks.Load()), s.chunks; got != want && !t.Failed() {
		t.Errorf("chunks audited: got %d, want %d", got, want)
	}
	if w := &s.work; w.pending != 0 || w.waiting != 0 || w.tcpPayload != 0 || s.capture.frag.heldFragments != 0 || s.out.batched != 0 {
		t.Errorf("held at the end: %d lookups, %d responses, %d TCP bytes, %d fragments, %d records", w.pending, w.waiting, w.tcpPayload, s.capture.frag.heldFragments, s.out.batched)
	}
	if got, want := uint64(strings.Count(out.lines.String(), "\n")), s.sinks[0].written; got != want || got != s.work.records+s.out.status {
		t.Errorf("lines: got %d, want %d written, %d records and %d status records", got, want, s.work.records, s.out.status)
	}
	return s, out.lines.String()
}

// bundledCaptures returns the captures in testdata.
func bundledCaptures(t testing.TB) []string {
	t.Helper()
	captures, err := filepath.Glob("testdata/pcap/*.pcap*")
	if err != nil || len(captures) == 0 {
		t.Fatalf("no captures in testdata/pcap (%v)", err)
	}
	return captures
}

func TestAccountOfCaptures(t *testing.T) {
	for _, capture := range bundledCaptures(t) {
		t.Run(filepath.Base(capture), func(t *testing.T) {
			_, want := replay(t, "-pcap", capture, "-numprocs=1", "-status_interval=1s")
			if _, got := replay(t, "-pcap", capture, "-numprocs=5", "-status_interval=1s"); got != want {
				t.Error("5 workers have other lines than one, status records included")
			}
		})
	}
}

// floods makes captures of every kind of hostile traffic that the flood generator knows.
func floods(t *testing.T, packets int) map[string]string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "flood")
	if out, err := exec.Command("go", "build", "-o", bin, "./testdata/bench/flood").CombinedOutput(); err != nil {
		t.Fatalf("build the flood generator: %v\n%s", err, out)
	}
	captures := make(map[string]string)
	for _, kind := range []string{"spoofed-queries", "unsolicited", "pointer-bombs", "rr-counts", "names127", "txt64k", "tcp-halfopen", "tcp-onebyte",
		"tcp-neverending", "frag-overlap", "frag-tiny", "frag-incomplete", "vlan-nest", "tunnel-nest", "clock-back", "clock-jump", "clock-zero",
		"clock-2262", "mixed-3", "long-queries", "same-key", "everything", "noise"} {
		file := filepath.Join(dir, kind+".pcap")
		cmd := exec.Command(bin, "-kind", kind, "-n", fmt.Sprint(packets), "-o", file, "-truth", filepath.Join(dir, kind+".json"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		captures[kind] = file
	}
	return captures
}

// TestAccountOfFloods checks the account of hostile traffic, with bounds that are reached.
func TestAccountOfFloods(t *testing.T) {
	var reached snapshot
	for kind, capture := range floods(t, 3_000) {
		for _, args := range [][]string{{"-numprocs=1", "-max_pending=200"}, {"-numprocs=5"}, {"-numprocs=3", "-incomplete=false", "-gc_age=1s", "-gc_interval=1s"}} {
			t.Run(kind+strings.Join(args, ""), func(t *testing.T) {
				s, _ := replay(t, append(args, "-pcap", capture)...)
				reached.work.add(&s.work)
				addFields(reflect.ValueOf(&reached.capture.frag).Elem(), reflect.ValueOf(&s.capture.frag).Elem())
			})
		}
	}
	w, f := &reached.work, &reached.capture.frag
	for name, n := range map[string]uint64{
		"evicted": w.evicted, "unanswered": w.unanswered, "unsolicited": w.unsolicited, "malformed": sum(w.malformed[:]),
		"fragments overlapping": f.overlapFragments, "fragments incomplete": f.incompleteFragments, "TCP streams given up": w.tcp.givenUp,
		"TCP messages": w.tcp.messages, "reassembled": f.reassembled,
	} {
		if n == 0 {
			t.Errorf("no flood has counted: %s", name)
		}
	}
}

// TestCounterTableIsComplete sets every counter, one at a time, and wants exactly the rows of the table that read it
// to change.
func TestCounterTableIsComplete(t *testing.T) {
	sums := map[string]bool{ // counted under another name, which an equation says is the same, or in its own form
		"work.tcp.segments": true, "work.tcp.messages": true, "work.latencySum": true,
		"out.merged": true, "out.submitted": true, "out.batched": true,
		fmt.Sprintf("capture.verdicts[%d]", verdictSlow): true, "work.malformed[0]": true, "work.broken[0]": true, "work.status[0]": true,
	}
	var s snapshot
	seen := make(map[int]bool)
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Array:
			for i := range v.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
			}
		case reflect.Uint64:
			n := (*uint64)(v.Addr().UnsafePointer())
			*n = 42
			rows := 0
			for i := range counterTable {
				if counterTable[i].get(&s) == 42 {
					rows++
					seen[i] = true
				}
			}
			*n = 0
			if sums[path] || strings.HasPrefix(path, "work.latency[") {
				return
			}
			if rows != 1 {
				t.Errorf("%s is in %d rows of counterTable, want 1", path, rows)
			}
		}
	}
	walk("capture", reflect.ValueOf(&s.capture).Elem())
	walk("work", reflect.ValueOf(&s.work).Elem())
	walk("out", reflect.ValueOf(&s.out).Elem())
	names := make(map[string]bool)
	for i := range counterTable {
		c := &counterTable[i]
		if !seen[i] {
			t.Errorf("row %s reads no counter", c.name)
		}
		if names[c.name] {
			t.Errorf("row %s is there twice", c.name)
		}
		names[c.name] = true
		if strings.ContainsFunc(c.name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
			t.Errorf("name %q is not snake_case", c.name)
		}
	}
}

func TestReport(t *testing.T) {
	s := &snapshot{settled: true, sinks: []sinkStats{{name: "stdout", submitted: 3, written: 1, dropped: 1, queuedRecords: 1}}}
	s.capture.frames, s.capture.verdicts[verdictUDP], s.capture.verdicts[verdictNotIP] = 3, 2, 1
	s.work.udpSegments, s.work.udpMessages, s.work.queries, s.work.pending = 2, 2, 2, 2
	s.work.records, s.out.merged, s.out.submitted = 3, 3, 3
	var b strings.Builder
	s.report(&b)
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{"3 packets", "2 packets_udp", "1 packets_not_ip", "2 segments_udp", "2 messages_udp", "2 queries", "3 records", "2 pending_lookups",
		"3 sink_stdout_submitted", "1 sink_stdout_written", "1 sink_stdout_dropped", "1 sink_stdout_queued_records",
		fmt.Sprintf("all %d equations of the account hold", len(s.equations()))}
	if !slices.Equal(got, want) {
		t.Errorf("report:\ngot  %q\nwant %q", got, want)
	}

	s.work.queries++
	b.Reset()
	s.report(&b)
	if want := "does not add up: queries = matched + repeated + unanswered + evicted + pending: 3 != 2\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("report of an account that does not add up: got %q, want the end %q", b.String(), want)
	}
}

// TestReadmeMetrics wants the README's table of metrics to be what counterTable says, with the sinks' and the latencies' metrics
// behind it.
func TestReadmeMetrics(t *testing.T) {
	var b strings.Builder
	b.WriteString("| status record, statsd, SIGUSR1 | Prometheus, with `gopassivedns_` before it | meaning |\n|---|---|---|\n")
	for i := 0; i < len(counterTable); {
		c := &counterTable[i]
		name, prom := "`"+c.name+"`", "the sum of the next ones"
		if c.prom != "" {
			prom = "`" + c.prom + "`"
		}
		i++
		if c.label != "" {
			prefix := strings.TrimSuffix(c.name, c.value)
			name = "`" + prefix + "…`: `" + c.value + "`"
			prom = "`" + c.prom + "{" + c.label + "}`"
			for ; i < len(counterTable) && counterTable[i].prom == c.prom; i++ {
				name += ", `" + counterTable[i].value + "`"
			}
		}
		if c.gauge {
			prom += ", a gauge"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, prom, strings.TrimSuffix(c.help, "."))
	}
	row := func(name, prom, help string) {
		fmt.Fprintf(&b, "| %s | `%s` | %s |\n", name, prom, strings.TrimSuffix(help, "."))
	}
	row("statsd: timers `lookup_latency_mean`, `_p50`, `_p95`, `_p99`, in ms", "lookup_duration_seconds", "Histogram: from a lookup's first query to its response, by capture time. Buckets are powers of two of µs, so quantiles are at most a factor of two off")
	row("statsd: gauge `memory_bytes`", "build_info", "Memory that the Go runtime holds; Prometheus has it among `go_…` and `process_…`, and 1 labelled with `version` and `goversion` as `build_info`")
	row("statsd, SIGUSR1: `sink_NAME_written`, `_dropped`, `_failed`", "sink_records_total{sink,result}", "Records that an output is done with, by what became of them")
	own := [...]string{"submitted", "resent", "errors", "queued_records", "queued_bytes", ""}
	for i, m := range sinkMetrics {
		name := "statsd, SIGUSR1: `sink_NAME_" + own[i] + "`"
		if own[i] == "" {
			name = ""
		}
		row(name, m.name+"{sink}", m.help)
	}
	checkReadme(t, "metrics", b.String())
}

func TestReportOnSignal(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	mon, err := openMonitors(testConfig(t, "-pcap=x"))
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	a := newAccount(1, nil)
	a.capture.frames, a.capture.verdicts[verdictNotIP] = 7, 7
	mon.watch(a, func(text []byte) { said <- string(text) }, 0)
	defer mon.close()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if got, want := <-said, "7  packets\n7  packets_not_ip\nall 16 equations of the account hold\n"; strings.ReplaceAll(got, "  7", "7") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
