// Command gopassivedns captures DNS traffic, pairs each response with its query and writes JSON records.
//
// The way of a packet, and of its bytes:
//
//	source ──frames──► feeder ──chunk──► worker ×N ──parts──► output ──batch──► sinkQueue ×M ──► sink
//	capture_*.go       capture.go        worker.go            output.go         sink.go          sink_*.go
//
// Goroutines: one captures (source and feeder: it decodes headers, defragments, hashes flows), -numprocs work (DNS,
// TCP streams, connection table, encoding), one merges the output, one serves each sink.
//
// Buffers: a chunk is written by the capture goroutine, read by all workers, and given back by the output goroutine
// (chunkCount exist). A part belongs to one worker and goes to the output goroutine and back (partCount each). A batch
// is made by the output goroutine, shared by all sinks and immutable.
//
// What is dropped where: the kernel drops packets when no chunk is free and its ring is full (live only); the defragmenter
// and the TCP table drop what exceeds their bounds; the connection table evicts; a sink's queue drops when it is full
// (live) or makes everything before it wait (file). Each has its counter, and the summary names it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"
)

// version is set by the linker (Makefile).
var version = "dev"

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // run-time failure
	exitUsage   = 2
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the program: it builds sinks, workers and source, in this order, and closes them in the opposite order, waiting
// for each. A first SIGINT or SIGTERM (or the end of ctx) stops reading; a second one ends the process at once.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cfg, err := parseConfig(args, os.LookupEnv)
	if err != nil {
		var ue *usageError
		if errors.As(err, &ue) {
			ue.print(stderr)
			return exitUsage
		}
		fmt.Fprintf(stderr, "gopassivedns: %v\n", err)
		return exitFailure
	}
	switch {
	case cfg.showHelp:
		writeHelp(stdout)
		return exitOK
	case cfg.showVersion:
		fmt.Fprintf(stdout, "gopassivedns %s\n", version)
		return exitOK
	}
	log := &userLog{stderr: stderr}
	if cfg.debug {
		log.debug = stdout
	}
	for _, w := range cfg.warnings {
		log.warnf("%s", w)
	}

	// Memory is bounded by pools, so collections may be rare; but garbage must not double what full tables hold, for which
	// a limit is set below.
	debug.SetGCPercent(200)

	if cfg.cpuProfile != "" {
		stopProfile, err := startProfile(cfg.cpuProfile)
		if err != nil {
			log.errorf("%v", err)
			return exitFailure
		}
		defer stopProfile()
	}

	// A reader of stdout that goes away (| head) ends the program quietly: the write must fail, not kill.
	signal.Ignore(syscall.SIGPIPE)

	stop := make(chan struct{})
	life := watchSignals(ctx, stop, cfg.drainTimeout)
	defer life.release()

	live := len(cfg.devs) > 0
	if live && cfg.pfring {
		if err := pfringMissing(); err != nil {
			return failWith(err, log, stderr)
		}
	}
	var filter frameFilter
	if cfg.bpfSet && !live {
		filter, err = compileFilter(cfg.bpf)
		if err != nil {
			var ue *usageError
			if errors.As(err, &ue) {
				ue.print(stderr)
			}
			return exitUsage
		}
	}

	var captures []string
	if !live {
		if captures, err = captureNames(cfg.pcap); err != nil {
			log.errorf("%v", err)
			return exitFailure
		}
	}
	mon, err := openMonitors(cfg)
	if err != nil {
		log.errorf("%v", err)
		return exitFailure
	}
	defer mon.close()

	queues, err := openSinks(cfg, stdout, log, !live)
	if err != nil {
		log.errorf("%v", err)
		return exitFailure
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // the user gave no GOMEMLIMIT
		debug.SetMemoryLimit(memoryBound(cfg, len(queues)))
	}
	var capture *liveCapture
	if live {
		capture, err = startLive(cfg, stop, log)
		if err != nil {
			drainAll(context.Background(), queues)
			return failWith(err, log, stderr)
		}
	}
	if live || cfg.logFile != "" {
		defer reopenOnHangup(queues)()
	}
	for _, q := range queues {
		defer q.limit(life.drainCtx)()
		go life.endWith(q)
	}
	log.debugf("gopassivedns %s: %d workers on %d cores, filter %q, %d sinks, %d captures", version, cfg.numProcs, runtime.GOMAXPROCS(0), cfg.bpf, len(queues), len(captures))
	p := newPipeline(cfg, queues, wantsMsgpack(cfg), stop)
	if live {
		mon.watch(p.acct, log.block, liveSilence)
		notifyReady()
		go keepWatchdog(p.acct.progress, life.end)
		err = capture.run(p.feeder)
		notifyStopping()
		life.endInput()
	} else {
		p.feeder.filter = filter
		mon.watch(p.acct, log.block, 0)
		err = readCaptures(p.feeder, captures, stdin, log)
	}
	p.finish()
	failed := err != nil && !errors.Is(err, errStopped)
	if failed {
		log.errorf("%v", err)
	}

	if !drainAll(life.drainCtx, queues) {
		failed = true
	}
	p.acct.snapshot().summary(stderr)
	if failed {
		return exitFailure
	}
	return exitOK
}

// drainAll ends the sinks and says whether all was delivered.
func drainAll(ctx context.Context, queues []*sinkQueue) bool {
	ok := true
	for _, q := range queues {
		if err := q.drain(ctx); err != nil {
			ok = false
		}
	}
	return ok
}

// startLive opens the devices, and then gives up root where -user says so. The log file is open already.
func startLive(cfg *config, stop <-chan struct{}, log logger) (*liveCapture, error) {
	var account *userAccount
	if cfg.user != "" {
		var err error
		if account, err = lookupUser(cfg.user); err != nil {
			return nil, err
		}
	} else if os.Geteuid() == 0 {
		log.warnf("running as root: -user NAME gives that up once the devices are open")
	}
	l, err := openLive(cfg.devs, liveOptionsOf(cfg), cfg.exitOnDeviceError, stop, log)
	if err != nil || account == nil {
		return l, err
	}
	if err := account.becomeWithLog(l.opener, cfg.logFile); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// failWith prints an error that may have a hint, and returns the exit code for it.
func failWith(err error, log *userLog, stderr io.Writer) int {
	var ue *usageError
	if errors.As(err, &ue) {
		ue.print(stderr)
		return exitUsage
	}
	var de *deviceError
	if errors.As(err, &de) {
		(&usageError{de.msg, de.hint}).print(stderr)
		if de.filter {
			return exitUsage
		}
		return exitFailure
	}
	log.errorf("%v", err)
	return exitFailure
}

// reopenOnHangup makes SIGHUP reopen the sinks; the function returned ends that.
func reopenOnHangup(queues []*sinkQueue) func() {
	sig, end := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(sig, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-sig:
				for _, q := range queues {
					q.reopen()
				}
			case <-end:
				return
			}
		}
	}()
	return func() {
		signal.Stop(sig)
		close(end)
	}
}

// startProfile begins a CPU profile; the function returned ends it.
func startProfile(name string) (func(), error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create profile %q: %w", name, pathReason(err))
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("start profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

// lifetime ends the reading of input, once, for whichever reason comes first.
type lifetime struct {
	stop     chan struct{}
	end      chan struct{}
	reason   chan struct{}
	sig      chan os.Signal
	drainCtx context.Context // ends drainTimeout after the reading was stopped
	tooLate  context.CancelFunc
}

// watchSignals closes stop at the first SIGINT, SIGTERM or end of ctx; a second signal then has its default effect.
func watchSignals(ctx context.Context, stop chan struct{}, drainTimeout time.Duration) *lifetime {
	l := &lifetime{stop: stop, end: make(chan struct{}), reason: make(chan struct{}, 1), sig: make(chan os.Signal, 2)}
	l.drainCtx, l.tooLate = context.WithCancel(context.Background())
	signal.Notify(l.sig, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case <-l.sig:
		case <-ctx.Done():
		case <-l.reason:
		case <-l.end:
			return
		}
		signal.Stop(l.sig) // a second signal ends the process
		select {
		case <-l.sig: // which it would have done, had it come a moment later
			_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		default:
		}
		close(l.stop)
		select {
		case <-time.After(drainTimeout):
			l.tooLate()
		case <-l.end:
		}
	}()
	return l
}

// endWith stops the input when q's sink has ended by itself.
func (l *lifetime) endWith(q *sinkQueue) {
	select {
	case <-q.done():
		l.endInput()
	case <-l.end:
	}
}

// endInput stops the input for a reason other than a signal, and begins the time that sinks have.
func (l *lifetime) endInput() {
	select {
	case l.reason <- struct{}{}:
	default:
	}
}

// release ends the watching; signals have their default effect again.
func (l *lifetime) release() {
	signal.Stop(l.sig)
	close(l.end)
	l.tooLate()
}
