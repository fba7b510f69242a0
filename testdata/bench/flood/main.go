// Command flood writes a capture of hostile traffic with good lookups among it, and beside it how many of those must
// be found.
//
//	go run ./testdata/bench/flood -kind KIND -n N -o FILE -truth FILE [-rate 100000] [-seed 1]
//
// What enters: a kind and at least how many hostile packets (-n). What leaves: the same capture for the same flags,
// always. 1 % of the packets belong to good lookups, each for a name of its own, good-000000.example. and on, each
// with one answer RR, each answered within 4 ms: one record with status "answer" for each is what gopassivedns owes.
// What it writes about the flood itself depends on its bounds and is not predicted here.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"gopassivedns/testdata/bench/wire"
)

// kind is one flood. step pushes at least one hostile packet, from f.now on.
type kind struct {
	about string
	step  func(f *flood)
	carry carry                      // what the good lookups travel in
	clock func(ns int64) (us uint64) // from the time that passes to the time that is written; nil: the same
	ng    bool                       // the times need pcapng
}

// kinds by name.
var kinds = map[string]kind{
	"spoofed-queries": {about: "queries with random names, ids, ports and addresses, never answered", step: spoofedQuery},
	"unsolicited":     {about: "responses that nobody asked for", step: unsolicited},
	"pointer-bombs":   {about: "names of compression pointers: loops, forward, to themselves, in long chains", step: pointerBomb},
	"rr-counts":       {about: "messages that claim 65,535 RRs, empty or full of the smallest", step: rrCounts},
	"names127":        {about: "names of 127 labels that need escapes, many RRs that point to them", step: longNames},
	"txt64k":          {about: "TCP: responses of 64 KB of TXT", step: largeTXT, carry: carryTCP},
	"tcp-halfopen":    {about: "TCP: SYNs, some with the first byte of a message, never more", step: halfOpen, carry: carryTCP},
	"tcp-onebyte":     {about: "TCP: one byte a segment, on many connections at once", step: oneByte, carry: carryTCP},
	"tcp-neverending": {about: "TCP: a length of 65,535 again and again, headers that look right, and junk", step: neverEnding, carry: carryTCP},
	"frag-overlap":    {about: "fragments that overlap, IPv4 and IPv6", step: overlapping, carry: carryFragments},
	"frag-tiny":       {about: "messages in fragments of 8 bytes, some without the last", step: tiny, carry: carryFragments},
	"frag-incomplete": {about: "trains of fragments of which one never comes", step: incomplete, carry: carryFragments},
	"vlan-nest":       {about: "3 to 300 VLAN tags around a query", step: nestedVLAN, carry: carryVLAN},
	"tunnel-nest":     {about: "3 to 25 tunnels around a query: IP-in-IP, GRE, VXLAN", step: nestedTunnel, carry: carryTunnel},
	"clock-back":      {about: "time jumps back by an hour every 10 ms, or runs backwards", step: spoofedQuery, clock: clockBack},
	"clock-jump":      {about: "time jumps by years every 10 ms: 2000, 2025, 2038, 2106, 1970", step: spoofedQuery, clock: clockJump},
	"clock-zero":      {about: "every time is 0", step: spoofedQuery, clock: func(int64) uint64 { return 0 }},
	"clock-2262":      {about: "pcapng: time runs over the end of 63 bits of ns in 2262, and to where 64 bits of µs end", step: spoofedQuery, clock: clock2262, ng: true},
	"mixed-3":         {about: "half-open TCP connections and incomplete trains of fragments in equal numbers", step: mixed, carry: carryMixed},
	"long-queries":    {about: "queries for names of 255 bytes, with random ids, ports and addresses, never answered", step: longQuery},
	"same-key":        {about: "queries from one address and port with one id, each for another name, never answered", step: sameKey},
	"everything":      {about: "what fills a table each, in turn: queries, responses, half-open and endless TCP, fragments", step: everything, carry: carryMixed},
	"noise":           {about: "frames of random bytes, and DNS ports with random payload", step: noise},
}

// truth is what is written beside the capture.
type truth struct {
	Kind         string `json:"kind"`
	Packets      int    `json:"packets"`
	FloodPackets int    `json:"flood_packets"`
	// GoodLookups is how many records with status answer and q starting with GoodPrefix there must be, each q once.
	GoodLookups int    `json:"good_lookups"`
	GoodPrefix  string `json:"good_prefix"`
	// Units counts what the flood consists of: connections, trains, messages.
	Units map[string]int `json:"units"`
}

func main() {
	names := slices.Sorted(maps.Keys(kinds))
	var about strings.Builder
	for _, k := range names {
		fmt.Fprintf(&about, "\n  %-17s %s", k, kinds[k].about)
	}
	name := flag.String("kind", "", "the flood:"+about.String())
	n := flag.Int("n", 1_000_000, "hostile packets at least; for mixed-3: connections, and trains")
	rate := flag.Float64("rate", 100_000, "hostile packets per second")
	seed := flag.Uint64("seed", 1, "seed")
	out := flag.String("o", "", "capture file to write")
	truthPath := flag.String("truth", "", "truth file to write")
	flag.Parse()
	if _, ok := kinds[*name]; !ok || *out == "" || *truthPath == "" || *n < 1 || *rate <= 0 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*name, *n, *rate, *seed, *out, *truthPath); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func run(name string, n int, rate float64, seed uint64, out, truthPath string) error {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	t, err := generate(name, n, rate, seed, file)
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(truthPath, append(b, '\n'), 0o644)
}

// generate writes one capture.
func generate(name string, n int, rate float64, seed uint64, file *os.File) (*truth, error) {
	k := kinds[name]
	if name == "mixed-3" {
		n *= mixedPackets // per connection and train
	}
	f := &flood{
		r:     rand.New(rand.NewPCG(seed, 0xda942042e4dd58b5)),
		now:   startNs,
		gap:   int64(1e9 / rate),
		truth: &truth{Kind: name, GoodPrefix: goodPrefix, Units: map[string]int{}},
	}
	var err error
	if k.ng {
		var w *wire.Pcapng
		if w, err = wire.NewPcapng(file); err != nil {
			return nil, err
		}
		f.write = func(ns int64, frame []byte) error { return w.Packet(k.clock(ns), frame) }
		f.close = w.Close
	} else {
		var w *wire.Pcap
		if w, err = wire.NewPcap(file, false); err != nil {
			return nil, err
		}
		f.write = w.Packet
		if k.clock != nil {
			f.write = func(ns int64, frame []byte) error { return w.Packet(int64(k.clock(ns))*1000, frame) }
		}
		f.close = w.Close
	}
	for f.truth.FloodPackets < n {
		before := f.truth.FloodPackets
		k.step(f)
		f.now += f.gap * int64(f.truth.FloodPackets-before)
		for f.goodPackets*99 < f.truth.FloodPackets {
			f.good(k.carry)
		}
		if err := f.drain(f.now); err != nil {
			return nil, err
		}
	}
	if err := f.drain(1 << 62); err != nil {
		return nil, err
	}
	return f.truth, f.close()
}
