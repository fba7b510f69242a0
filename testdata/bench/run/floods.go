// This file: the floods. What enters: how many hostile packets the largest floods are to have. What leaves: a table of
// speed, memory, good lookups found and what was lost, and a line for each requirement that is missed:
//
// Memory stays under the bound that README's section on sizing gives, counted with the lookups that the flood can leave
// waiting. No good lookup is lost. And a flood is not slower than a fifth of ordinary traffic, measured just before it,
// in the unit that its cost is in: packets per second; for packets of more than twice the ordinary size, bytes read per
// second; where a packet becomes more than four times the ordinary bytes of records, bytes written per second, since one
// packet may be a thousand lines.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// The memory bound, as pipeline.go adds it up for the default flags: 8 workers, 1 output, a million lookups. MB are 2^20
// bytes, as the kernel counts.
const (
	fixedMB      = 200 + 8*16 + 8 + 2*8
	longBytes    = 600.0 // of a lookup with a long name
	shortBytes   = 300.0
	maxPending   = 1_000_000
	minFloodRate = 0.2
	largeTimes   = 2.0
	growingTimes = 4.0
)

// floodKind is a row of the table. share is how many packets it has of those of the largest floods: what a packet costs,
// or how large it is, differs by a thousand times.
type floodKind struct {
	name  string
	share float64
	long  bool // leaves lookups with long names waiting
}

var floodKinds = []floodKind{
	{"spoofed-queries", 1, false}, {"unsolicited", 1, false}, {"long-queries", 0.4, true}, {"same-key", 0.4, false},
	{"pointer-bombs", 0.1, false}, {"rr-counts", 0.1, false}, {"names127", 0.02, true}, {"txt64k", 0.1, false},
	{"tcp-halfopen", 0.4, false}, {"tcp-onebyte", 0.4, false}, {"tcp-neverending", 0.1, false},
	{"frag-overlap", 0.2, false}, {"frag-tiny", 0.4, false}, {"frag-incomplete", 0.2, false}, {"mixed-3", 0.1, false},
	{"vlan-nest", 0.2, false}, {"tunnel-nest", 0.1, false},
	{"clock-back", 0.2, false}, {"clock-jump", 0.2, false}, {"clock-zero", 0.2, false}, {"clock-2262", 0.2, false},
	{"everything", 0.1, true}, {"noise", 0.2, false},
}

// floodRun is one flood measured beside ordinary traffic.
type floodRun struct {
	kind            floodKind
	packets         int
	read, written   float64 // bytes
	got             cost
	lost            string
	found, expected int
	wrong           string
	ordinary        struct{ packets, read, written float64 } // per second
}

// rate returns the flood's speed as a share of ordinary traffic's, and the unit that it is to be compared in.
func (r *floodRun) rate() (share float64, unit string) {
	o := &r.ordinary
	s := r.got.wall.Seconds()
	switch {
	case r.written/float64(r.packets) > growingTimes*o.written/o.packets:
		return r.written / s / o.written, "bytes written"
	case r.read/float64(r.packets) > largeTimes*o.read/o.packets:
		return r.read / s / o.read, "bytes read"
	}
	return float64(r.packets) / s / o.packets, "packets"
}

// boundMB is the memory that the flood may need.
func (r *floodRun) boundMB() float64 {
	per := shortBytes
	if r.kind.long {
		per = longBytes
	}
	return fixedMB + float64(min(r.packets, maxPending))*per/(1<<20)
}

// missed returns the requirements that the flood has missed.
func (r *floodRun) missed() (missed []string) {
	miss := func(format string, args ...any) {
		missed = append(missed, r.kind.name+": "+fmt.Sprintf(format, args...))
	}
	if bound := r.boundMB(); r.got.memoryMB > bound {
		miss("peak memory is %.0f MB, the bound is %.0f", r.got.memoryMB, bound)
	}
	if share, unit := r.rate(); share < minFloodRate {
		miss("%.2f of ordinary traffic's %s/s, the limit is %g", share, unit, minFloodRate)
	}
	if r.found != r.expected {
		miss("%d good lookups found, want %d", r.found, r.expected)
	}
	if r.wrong != "" {
		miss("%.500s", r.wrong)
	}
	return missed
}

// floods runs every kind. plain is the capture of ordinary traffic.
func floods(ctx context.Context, c *config, plain *capture, n int) (missed []string, err error) {
	bin := filepath.Join(c.dir, "flood")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "gopassivedns/testdata/bench/flood").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the flood generator: %w\n%s", err, out)
	}
	path, truthPath := filepath.Join(c.dir, "flood.pcap"), filepath.Join(c.dir, "flood.truth.json")
	defer os.Remove(path)
	defer os.Remove(truthPath)
	var ordinaryWritten float64
	err = piped(ctx, c.bin, []string{"-pcap", plain.path}, func(r io.Reader) error {
		n, err := io.Copy(io.Discard, r)
		ordinaryWritten = float64(n)
		return err
	})
	if err != nil {
		return nil, err
	}
	var runs []*floodRun
	for _, kind := range floodKinds {
		if c.flood != nil && !slices.Contains(c.flood, kind.name) {
			continue
		}
		packets := strconv.Itoa(max(1000, int(kind.share*float64(n))))
		if out, err := exec.CommandContext(ctx, bin, "-kind", kind.name, "-n", packets, "-o", path, "-truth", truthPath).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("generate %s: %w\n%s", kind.name, err, out)
		}
		r, err := oneFlood(ctx, c, kind, path, truthPath, plain, ordinaryWritten)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
		share, unit := r.rate()
		fmt.Fprintf(os.Stderr, "%-15s %s, %.2f of ordinary traffic's %s/s, %d of %d good lookups\n", kind.name, r.got, share, unit, r.found, r.expected)
		missed = append(missed, r.missed()...)
	}
	floodTable(os.Stdout, runs)
	return missed, nil
}

// oneFlood measures the capture at path: ordinary traffic and the flood in turns, twice, of which the faster counts, and
// then once more to read what is written.
func oneFlood(ctx context.Context, c *config, kind floodKind, path, truthPath string, plain *capture, ordinaryWritten float64) (*floodRun, error) {
	var want struct {
		Packets     int    `json:"packets"`
		GoodLookups int    `json:"good_lookups"`
		GoodPrefix  string `json:"good_prefix"`
	}
	b, err := os.ReadFile(truthPath)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &want); err != nil {
		return nil, fmt.Errorf("read %s: %w", truthPath, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	r := &floodRun{kind: kind, packets: want.Packets, read: float64(info.Size()), expected: want.GoodLookups}
	ordinary := time.Duration(1 << 62)
	for round := range 2 {
		o, err := once(ctx, c.bin, "-pcap", plain.path)
		if err != nil {
			return nil, err
		}
		got, err := once(ctx, c.bin, "-pcap", path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind.name, err)
		}
		ordinary = min(ordinary, o.wall)
		if round > 0 {
			got.wall, got.memoryMB = min(got.wall, r.got.wall), max(got.memoryMB, r.got.memoryMB)
		}
		r.got = got
	}
	r.lost = lostIn(r.got.said)
	r.ordinary.packets = float64(plain.truth.Packets) / ordinary.Seconds()
	r.ordinary.read = float64(plain.truth.Bytes) / ordinary.Seconds()
	r.ordinary.written = ordinaryWritten / ordinary.Seconds()
	err = piped(ctx, c.bin, []string{"-pcap", path}, func(out io.Reader) error {
		counted := &countingReader{r: out}
		var err error
		r.found, r.wrong, err = countGood(counted, want.GoodPrefix)
		r.written = float64(counted.n)
		return err
	})
	return r, err
}

// countingReader counts the bytes that pass.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// lostLine is the summary's line of losses and oddities.
var lostLine = regexp.MustCompile(`(?m)^lost or odd: (.*)$`)

// lostIn returns what a summary says was lost, "nothing" where it says nothing.
func lostIn(summary string) string {
	if m := lostLine.FindStringSubmatch(summary); m != nil {
		return strings.TrimSpace(m[1])
	}
	return "nothing"
}

// floodTable prints the runs in Markdown.
func floodTable(out io.Writer, runs []*floodRun) {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| flood\t| packets\t| packets/s\t| MB/s read\t| MB/s written\t| of ordinary\t| peak memory\t| bound\t| good lookups found\t| counted as lost or odd\t|")
	fmt.Fprintln(w, "|---\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---\t|")
	for _, r := range runs {
		s := r.got.wall.Seconds()
		share, unit := r.rate()
		fmt.Fprintf(w, "| %s\t| %d\t| %.0f\t| %.0f\t| %.0f\t| %.2f (%s)\t| %.0f MB\t| %.0f MB\t| %d of %d\t| %s\t|\n",
			r.kind.name, r.packets, float64(r.packets)/s, r.read/s/1e6, r.written/s/1e6, share, unit, r.got.memoryMB, r.boundMB(), r.found, r.expected, r.lost)
	}
	w.Flush()
}

// countGood counts the good lookups that have one record, with an answer. wrong is the first line that is not JSON, or
// the first good lookup with another record or a second one. Only one line in a hundred is validated where there are more
// than a million: reading what a flood wrote must not take longer than the flood.
func countGood(r io.Reader, prefix string) (found int, wrong string, err error) {
	lines := bufio.NewReaderSize(r, 1<<20)
	mark := []byte(`"q":"` + prefix)
	seen := map[string]bool{}
	for n := 0; ; n++ {
		line, err := readLine(lines)
		if err == io.EOF && len(line) == 0 {
			return found, wrong, nil
		}
		if err != nil && err != io.EOF {
			return 0, "", err
		}
		good := bytes.Contains(line[:min(len(line), 400)], mark)
		var rec struct {
			Q      string `json:"q"`
			Status string `json:"status"`
		}
		if good {
			err = json.Unmarshal(line, &rec)
		}
		switch {
		case good && err == nil && rec.Status == "answer" && !seen[rec.Q]:
			found++
			seen[rec.Q] = true
		case (good || (n < 1_000_000 || n%100 == 0) && !json.Valid(line)) && wrong == "":
			wrong = string(line)
		}
	}
}

// readLine returns the next line, valid until the next call. Only a line longer than the buffer is copied.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, err
	}
	long := slices.Clone(line)
	rest, err := r.ReadBytes('\n')
	return append(long, rest...), err
}
