package main

// sinks.go opens the sinks that the configuration names.

import "io"

// blockQueueMB is what may wait for a sink when a full queue makes the reading of a file wait: more would only take memory.
const blockQueueMB = 8

// openSinks opens every sink that cfg asks for, each behind its queue. block is the overflow policy: true for files,
// false for live devices. A sink whose receiver is away is opened all the same; its queue connects it.
func openSinks(cfg *config, stdout io.Writer, log logger, block bool) ([]*sinkQueue, error) {
	var sinks []sink
	add := func(s sink, err error) error {
		if err == nil {
			sinks = append(sinks, s)
			log.debugf("sink %s: opened", s.name())
		}
		return err
	}
	if cfg.logFile != "" {
		if err := add(newFileSink(fileOptions{path: cfg.logFile, maxSize: cfg.logMaxSize, maxAge: cfg.logMaxAge, maxBackups: cfg.logMaxBackups,
			compress: cfg.logCompress, mode: cfg.logFileMode, log: log})); err != nil {
			return nil, err
		}
	}
	if cfg.syslog.facility != "" {
		opt := cfg.syslog
		opt.log = log
		if err := add(newSyslogSink(opt)); err != nil {
			return nil, err
		}
	}
	if cfg.fluentd.address != "" {
		opt := cfg.fluentd
		opt.log = log
		if err := add(newFluentdSink(opt)); err != nil {
			return nil, err
		}
	}
	if cfg.kafka.topic != "" {
		opt := cfg.kafka
		opt.log = log
		if err := add(newKafkaSink(opt)); err != nil {
			return nil, err
		}
	}
	if !cfg.quiet {
		if err := add(newStdoutSink(stdout), nil); err != nil {
			return nil, err
		}
	}
	var queues []*sinkQueue
	for _, s := range sinks {
		queues = append(queues, newSinkQueue(s, sinkOptions{queueBytes: cfg.queueBytes(), block: block, log: log}))
	}
	return queues, nil
}

// queueBytes is the bound of what waits for one sink.
func (c *config) queueBytes() int {
	if c.pcap != "" {
		return min(c.queueMB, blockQueueMB) << 20
	}
	return c.queueMB << 20
}

// wantsMsgpack says whether a sink takes records as msgpack.
func wantsMsgpack(cfg *config) bool { return cfg.fluentd.address != "" }
