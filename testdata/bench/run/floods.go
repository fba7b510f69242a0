// This file: the floods. What enters: how many hostile packets each kind is to have. What leaves: a table of memory,
// speed and good lookups found. A flood must leave memory under a bound, must not be slower than a fifth of ordinary
// traffic measured just before it (by packets or by bytes: what a packet of 64 KB answers costs is its bytes), and
// must not cost a single good lookup.
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
	"strconv"
	"text/tabwriter"
)

const (
	maxFloodMB   = 300.0
	minFloodRate = 0.2 // of ordinary traffic's packets per second or bytes per second
)

// floodKinds in the order of the table.
var floodKinds = []string{
	"spoofed-queries", "unsolicited", "pointer-bombs", "rr-counts", "names127", "txt64k", "tcp-halfopen", "tcp-onebyte",
	"tcp-neverending", "frag-overlap", "frag-tiny", "frag-incomplete", "vlan-nest", "tunnel-nest", "clock-back",
	"clock-jump", "clock-zero", "clock-2262", "mixed-3", "noise",
}

// floods runs every kind. plain is the capture of ordinary traffic.
func floods(ctx context.Context, c *config, plain *capture, n int) (missed []string, err error) {
	bin := filepath.Join(c.dir, "flood")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "gopassivedns/testdata/bench/flood").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the flood generator: %w\n%s", err, out)
	}
	path, truthPath := filepath.Join(c.dir, "flood.pcap"), filepath.Join(c.dir, "flood.truth.json")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| flood\t| packets\t| peak memory\t| packets/s\t| of ordinary\t| MB/s\t| of ordinary\t| good lookups found\t|")
	fmt.Fprintln(w, "|---\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|")
	for _, kind := range floodKinds {
		if out, err := exec.CommandContext(ctx, bin, "-kind", kind, "-n", strconv.Itoa(n), "-o", path, "-truth", truthPath).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("generate %s: %w\n%s", kind, err, out)
		}
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
		ordinary, err := once(ctx, c.bin, "-pcap", plain.path)
		if err != nil {
			return nil, err
		}
		got, err := once(ctx, c.bin, "-pcap", path)
		if err != nil {
			missed = append(missed, fmt.Sprintf("%s: %v", kind, err))
			continue
		}
		found, wrong := 0, ""
		err = piped(ctx, c.bin, []string{"-pcap", path}, func(r io.Reader) error {
			var err error
			found, wrong, err = countGood(r, want.GoodPrefix)
			return err
		})
		if err != nil {
			return nil, err
		}
		rate, bytesRate := float64(want.Packets)/got.wall.Seconds(), float64(info.Size())/got.wall.Seconds()
		ofPackets := rate / (float64(plain.truth.Packets) / ordinary.wall.Seconds())
		ofBytes := bytesRate / (float64(plain.truth.Bytes) / ordinary.wall.Seconds())
		fmt.Fprintf(w, "| %s\t| %d\t| %.0f MB\t| %.0f\t| %.2f\t| %.1f\t| %.2f\t| %d of %d\t|\n",
			kind, want.Packets, got.memoryMB, rate, ofPackets, bytesRate/1e6, ofBytes, found, want.GoodLookups)
		fmt.Fprintf(os.Stderr, "%-15s %s, %d of %d good lookups\n", kind, got, found, want.GoodLookups)
		if got.memoryMB > maxFloodMB {
			missed = append(missed, fmt.Sprintf("%s: peak memory is %.0f MB, the limit is %g", kind, got.memoryMB, maxFloodMB))
		}
		if ofPackets < minFloodRate && ofBytes < minFloodRate {
			missed = append(missed, fmt.Sprintf("%s: %.2f of ordinary traffic's packets/s and %.2f of its bytes/s, the limit is %g", kind, ofPackets, ofBytes, minFloodRate))
		}
		if found != want.GoodLookups {
			missed = append(missed, fmt.Sprintf("%s: %d good lookups found, want %d", kind, found, want.GoodLookups))
		}
		if wrong != "" {
			missed = append(missed, fmt.Sprintf("%s: %.500s", kind, wrong))
		}
	}
	for _, p := range []string{path, truthPath} {
		if err := os.Remove(p); err != nil {
			return nil, err
		}
	}
	return missed, w.Flush()
}

// countGood counts the good lookups that have one record, with an answer. wrong is the first line that is not JSON, or
// the first good lookup with another record or a second one.
func countGood(r io.Reader, prefix string) (found int, wrong string, err error) {
	lines := bufio.NewReaderSize(r, 1<<20)
	mark := []byte(`"q":"` + prefix)
	seen := map[string]bool{}
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return found, wrong, nil
		}
		if err != nil && err != io.EOF {
			return 0, "", err
		}
		good := bytes.Contains(line, mark)
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
		case (good || !json.Valid(line)) && wrong == "":
			wrong = string(line)
		}
	}
}
