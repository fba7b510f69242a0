// Command gen writes a capture of a busy resolver's traffic, and beside it the truth: what gopassivedns must report.
//
//	go run ./testdata/bench/gen -packets 2000000 -o FILE.pcap -truth FILE.truth.json [-tcp 0.10] [-vxlan] [-nano]
//
// What enters: a seed. What leaves: the same capture for the same flags, always, sorted by time, with exactly as many
// packets as asked for. Packets are made lookup by lookup and wait in a queue ordered by time until no earlier one
// can come, so memory holds the names and the lookups in flight, not the capture. (client, port, server, id) is never
// used twice, but for a query sent again before its response; every lookup is complete when the file ends.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"

	"gopassivedns/testdata/bench/truth"
	"gopassivedns/testdata/bench/wire"
)

// options are the flags that shape the capture.
type options struct {
	packets int
	seed    uint64
	rate    float64
	tcp     float64
	vxlan   bool
	nano    bool
}

func main() {
	var o options
	flag.IntVar(&o.packets, "packets", 2_000_000, "packets to write")
	flag.Uint64Var(&o.seed, "seed", 1, "seed")
	flag.Float64Var(&o.rate, "rate", 60_000, "mean packets per second")
	flag.Float64Var(&o.tcp, "tcp", 0, "share of the lookups that use TCP, 0 to 1")
	flag.BoolVar(&o.vxlan, "vxlan", false, "wrap every frame in VXLAN")
	flag.BoolVar(&o.nano, "nano", false, "times in ns, not µs")
	out := flag.String("o", "", "capture file to write")
	truthPath := flag.String("truth", "", "truth file to write")
	flag.Parse()
	if *out == "" || *truthPath == "" || flag.NArg() > 0 || o.packets < 1 || o.rate <= 0 || o.tcp < 0 || o.tcp > 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(o, *out, *truthPath); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(o options, out, truthPath string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := wire.NewPcap(f, o.nano)
	if err != nil {
		return err
	}
	t, err := generate(o, w)
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return t.Write(truthPath)
}

// startNs is 2025-06-02 08:00:00 UTC, any Monday morning.
const startNs = 1748851200 * int64(1e9)

// generate writes the packets and returns the truth. It does not close w.
func generate(o options, w *wire.Pcap) (*truth.Counts, error) {
	r := rand.New(rand.NewPCG(o.seed, 0x9e3779b97f4a7c15))
	g := newGenerator(o, r, w.Tick)
	// 2 packets for a lookup over UDP, about 10 over TCP.
	gap := (2 + 8*o.tcp) / o.rate * 1e9
	now := float64(startNs)
	for g.scheduled < o.packets {
		now += r.ExpFloat64() * gap
		if err := g.drain(int64(now), w); err != nil {
			return nil, err
		}
		g.lookup(int64(now), o.packets-g.scheduled)
	}
	return g.truth, g.drain(1<<62, w)
}
