// Command run measures gopassivedns beside tcpdump, on captures that it has the generator make.
//
//	go run ./testdata/bench/run -bin ./gopassivedns -dir build/bench [-runs 5] [-packets N] [-only udp,tcp,vxlan] [-determinism] [-floods N [-flood KIND,…]]
//
// What enters: a binary. What leaves: a table of CPU, wall time and peak memory fit for the README, and exit code 1
// with a line for each requirement that is missed. Times are compared within one run only: the programs take turns on
// the same file, round by round, after one warm-up each, and the medians over the rounds are printed. Both write to
// /dev/null itself, not to a pipe. Then the records are counted once and must agree with the truth exactly. Peak
// memory is the kernel's ru_maxrss, which a child of this program starts at this program's own size; that stays small
// because nothing is read into memory before the measuring is over.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"gopassivedns/testdata/bench/truth"
)

// The requirements. CPU is user and system time.
const (
	maxCPU       = 5.0 // times tcpdump's, on UDP
	aimCPU       = 3.5
	maxWall      = 3.0 // times tcpdump's, on UDP
	maxMemoryMB  = 150.0
	maxTCPCPU    = 2.0 // CPU per packet, times that of the UDP capture
	minVXLANRate = 0.5 // packets per second, times that of the UDP capture
)

// kinds are the captures in the order of the rounds, with their generator flags.
var kinds = []struct {
	name  string
	flags []string
}{
	{"udp", nil},
	{"tcp", []string{"-tcp", "0.10"}},
	{"vxlan", []string{"-vxlan"}},
}

type capture struct {
	name  string
	path  string
	truth *truth.Counts
	ours  []cost
	peer  []cost
}

// cost of one run of a program.
type cost struct {
	cpu, wall time.Duration
	memoryMB  float64
	said      string // stderr
}

type config struct {
	bin, dir string
	runs     int
	packets  int
	only     []string
	floods   int
	flood    []string // nil: all
}

func main() {
	var c config
	flag.StringVar(&c.bin, "bin", "./gopassivedns", "the binary to measure")
	flag.StringVar(&c.dir, "dir", "build/bench", "directory for the captures, which are kept for the next time")
	flag.IntVar(&c.runs, "runs", 5, "rounds to measure")
	flag.IntVar(&c.packets, "packets", 2_000_000, "packets of each capture")
	only := flag.String("only", "udp,tcp,vxlan", "captures to use")
	determinism := flag.Bool("determinism", false, "also compare the output of 1, 2, 3, 8 and 13 workers, three times each")
	flag.IntVar(&c.floods, "floods", 0, "instead, run the floods, the largest with that many hostile packets")
	flood := flag.String("flood", "", "floods to run, of those that floods.go lists; all without")
	flag.Parse()
	c.only = strings.Split(*only, ",")
	if *flood != "" {
		c.flood = strings.Split(*flood, ",")
	}
	for _, name := range c.only {
		if name != "udp" && name != "tcp" && name != "vxlan" {
			fmt.Fprintf(os.Stderr, "run: -only %q: a capture is udp, tcp or vxlan\n", name)
			os.Exit(2)
		}
	}
	if flag.NArg() > 0 || c.runs < 1 || c.packets < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	missed, err := run(ctx, &c, *determinism)
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
	for _, m := range missed {
		fmt.Println("MISSED:", m)
	}
	if len(missed) > 0 {
		os.Exit(1)
	}
	fmt.Println("Every requirement is met.")
}

// run returns the requirements that are missed; an error means that there is no measurement.
func run(ctx context.Context, c *config, determinism bool) (missed []string, err error) {
	if _, err := exec.LookPath("tcpdump"); err != nil && c.floods == 0 {
		return nil, errors.New("tcpdump is the measure and is not there; on Debian: apt-get install tcpdump")
	}
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return nil, err
	}
	if _, err := os.Stat(c.bin); err != nil {
		return nil, fmt.Errorf("-bin: %w", err)
	}
	if c.floods > 0 {
		c.only = []string{"udp"}
	}
	captures, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.floods > 0 {
		return floods(ctx, c, captures[0], c.floods)
	}
	if err := measure(ctx, c, captures); err != nil {
		return nil, err
	}
	table(captures)
	missed = judge(captures)
	for _, cp := range captures {
		m, err := compare(ctx, c.bin, cp)
		if err != nil {
			return nil, err
		}
		missed = append(missed, m...)
	}
	if determinism {
		for _, cp := range captures {
			m, err := sameBytes(ctx, c.bin, cp)
			if err != nil {
				return nil, err
			}
			missed = append(missed, m...)
		}
	}
	return missed, nil
}

// prepare builds the generator and makes the captures that are not there. A capture's name holds a digest of the
// generator, so that one from an older generator is never used; such ones are removed.
func prepare(ctx context.Context, c *config) ([]*capture, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	gen := filepath.Join(c.dir, "gen")
	if out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", gen, "gopassivedns/testdata/bench/gen").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the generator: %w\n%s", err, out)
	}
	b, err := os.ReadFile(gen)
	if err != nil {
		return nil, err
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(b))[:10]
	var captures []*capture
	for _, k := range kinds {
		if !slices.Contains(c.only, k.name) {
			continue
		}
		base := filepath.Join(c.dir, fmt.Sprintf("%s-%d-%s", k.name, c.packets, digest))
		cp := &capture{name: k.name, path: base + ".pcap"}
		if _, err := os.Stat(cp.path); err != nil {
			if err := generate(ctx, c, gen, cp.path, base+".truth.json", k.name, k.flags); err != nil {
				return nil, err
			}
		}
		if cp.truth, err = truth.Read(base + ".truth.json"); err != nil {
			return nil, err
		}
		captures = append(captures, cp)
	}
	return captures, nil
}

func generate(ctx context.Context, c *config, gen, path, truthPath, kind string, flags []string) error {
	old, err := filepath.Glob(filepath.Join(c.dir, fmt.Sprintf("%s-%d-*", kind, c.packets)))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "Generating %s\n", path)
	args := append([]string{"-packets", strconv.Itoa(c.packets), "-o", path + ".new", "-truth", truthPath}, flags...)
	if out, err := exec.CommandContext(ctx, gen, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("generate %s: %w\n%s", path, err, out)
	}
	return os.Rename(path+".new", path)
}

// measure lets the programs take turns: in every round each capture is read by both, one after the other.
func measure(ctx context.Context, c *config, captures []*capture) error {
	for round := range c.runs + 1 {
		for _, cp := range captures {
			ours, err := once(ctx, c.bin, "-pcap", cp.path)
			if err != nil {
				return err
			}
			peer, err := once(ctx, "tcpdump", "-r", cp.path, "-w", "/dev/null")
			if err != nil {
				return err
			}
			if round == 0 { // the warm-up brings file and programs into the page cache
				continue
			}
			cp.ours = append(cp.ours, ours)
			cp.peer = append(cp.peer, peer)
			fmt.Fprintf(os.Stderr, "%-5s %d/%d: gopassivedns %s; tcpdump %s; CPU %.2f, wall %.2f times\n",
				cp.name, round, c.runs, ours, peer, ratio(ours.cpu, peer.cpu), ratio(ours.wall, peer.wall))
		}
	}
	return nil
}

func (c cost) String() string {
	return fmt.Sprintf("CPU %.2f s, wall %.2f s, %.0f MB", c.cpu.Seconds(), c.wall.Seconds(), c.memoryMB)
}

// once runs a program with stdout on /dev/null and returns what it cost.
func once(ctx context.Context, bin string, args ...string) (cost, error) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return cost{}, err
	}
	defer null.Close()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdout, cmd.Stderr = null, &stderr
	start := time.Now()
	err = cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return cost{}, errors.New("this system does not tell what a process has used")
	}
	return cost{
		cpu:      cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		wall:     wall,
		memoryMB: float64(usage.Maxrss) / 1024, // Linux counts in KiB
		said:     stderr.String(),
	}, nil
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// median of f over the rounds.
func median(n int, f func(i int) float64) float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = f(i)
	}
	slices.Sort(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// summary is the medians of one capture.
type summary struct {
	cpu, wall, memoryMB, rate float64
	peerCPU, peerWall         float64
	cpuTimes, wallTimes       float64 // medians of the rounds' ratios
}

func (cp *capture) summary() summary {
	n := len(cp.ours)
	return summary{
		cpu:       median(n, func(i int) float64 { return cp.ours[i].cpu.Seconds() }),
		wall:      median(n, func(i int) float64 { return cp.ours[i].wall.Seconds() }),
		memoryMB:  slices.MaxFunc(cp.ours, func(a, b cost) int { return int(a.memoryMB*1024) - int(b.memoryMB*1024) }).memoryMB,
		rate:      float64(cp.truth.Packets) / median(n, func(i int) float64 { return cp.ours[i].wall.Seconds() }),
		peerCPU:   median(n, func(i int) float64 { return cp.peer[i].cpu.Seconds() }),
		peerWall:  median(n, func(i int) float64 { return cp.peer[i].wall.Seconds() }),
		cpuTimes:  median(n, func(i int) float64 { return ratio(cp.ours[i].cpu, cp.peer[i].cpu) }),
		wallTimes: median(n, func(i int) float64 { return ratio(cp.ours[i].wall, cp.peer[i].wall) }),
	}
}

// table prints the medians in Markdown. Memory is the highest of the rounds.
func table(captures []*capture) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| capture\t| packets\t| records\t| CPU\t| tcpdump's\t| times\t| wall\t| tcpdump's\t| times\t| packets/s\t| peak memory\t|")
	fmt.Fprintln(w, "|---\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|---:\t|")
	for _, cp := range captures {
		s := cp.summary()
		fmt.Fprintf(w, "| %s\t| %d\t| %d\t| %.2f s\t| %.2f s\t| %.2f\t| %.2f s\t| %.2f s\t| %.2f\t| %.0f\t| %.0f MB\t|\n",
			cp.name, cp.truth.Packets, cp.truth.RecordsTotal, s.cpu, s.peerCPU, s.cpuTimes, s.wall, s.peerWall, s.wallTimes, s.rate, s.memoryMB)
	}
	w.Flush()
}

// judge compares the measurements with the requirements.
func judge(captures []*capture) (missed []string) {
	var plain *capture
	for _, cp := range captures {
		if cp.name == "udp" {
			plain = cp
		}
	}
	for _, cp := range captures {
		s := cp.summary()
		check := func(met bool, what string, got, limit float64) {
			line := fmt.Sprintf("%s: %s is %.2f, the limit is %g", cp.name, what, got, limit)
			if !met {
				missed = append(missed, line)
			} else {
				fmt.Println(line)
			}
		}
		check(s.memoryMB <= maxMemoryMB, "peak memory in MB", s.memoryMB, maxMemoryMB)
		if cp == plain {
			check(s.cpuTimes <= maxCPU, "CPU as a multiple of tcpdump's", s.cpuTimes, maxCPU)
			check(s.wallTimes <= maxWall, "wall time as a multiple of tcpdump's", s.wallTimes, maxWall)
			if s.cpuTimes > aimCPU {
				fmt.Printf("udp: CPU misses the aim of %g times tcpdump's, which is no requirement\n", aimCPU)
			}
			continue
		}
		if plain == nil {
			fmt.Printf("%s: not compared with plain UDP, which -only leaves out\n", cp.name)
			continue
		}
		n := len(cp.ours)
		per := float64(plain.truth.Packets) / float64(cp.truth.Packets)
		switch cp.name {
		case "tcp":
			times := median(n, func(i int) float64 { return per * ratio(cp.ours[i].cpu, plain.ours[i].cpu) })
			check(times <= maxTCPCPU, "CPU per packet as a multiple of plain UDP's", times, maxTCPCPU)
		case "vxlan":
			rate := median(n, func(i int) float64 { return ratio(plain.ours[i].wall, cp.ours[i].wall) / per })
			check(rate >= minVXLANRate, "packets per second as a share of plain UDP's", rate, minVXLANRate)
		}
	}
	return missed
}
