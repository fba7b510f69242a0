package main

// sinks.go opens the sinks that the configuration names.

import "io"

// sinkQueueBytes bounds what waits for one sink.
const sinkQueueBytes = 8 << 20

// openSinks opens every sink that cfg asks for, each behind its queue. block is the overflow policy: true for files,
// false for live devices.
func openSinks(cfg *config, stdout io.Writer, log logger, block bool) ([]*sinkQueue, error) {
	var sinks []sink
	if cfg.logFile != "" {
		s, err := newFileSink(fileOptions{path: cfg.logFile, maxSize: cfg.logMaxSize, maxAge: cfg.logMaxAge, maxBackups: cfg.logMaxBackups, log: log})
		if err != nil {
			return nil, err
		}
		sinks = append(sinks, s)
	}
	if !cfg.quiet {
		sinks = append(sinks, newStdoutSink(stdout))
	}
	var queues []*sinkQueue
	for _, s := range sinks {
		queues = append(queues, newSinkQueue(s, sinkOptions{queueBytes: sinkQueueBytes, block: block, log: log}))
	}
	return queues, nil
}
