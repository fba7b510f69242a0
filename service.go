package main

// service.go talks to the service manager (sd_notify(3)): ready when capture is open, alive while chunks get through
// the whole pipeline, stopping at the end. Without a service manager all of it does nothing.

import (
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyReady says that capture is open. The calls can't fail in a way that the user should hear of: either there is no
// service manager, or it will notice itself.
func notifyReady() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }

// notifyStopping says that the program ends by itself or was told to.
func notifyStopping() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }

// keepWatchdog tells the service manager's watchdog, where there is one, that the program lives, as often as it wants
// to hear it and as long as progress returns another value each time. end ends it.
func keepWatchdog(progress func() uint64, end <-chan struct{}) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	beat(interval/3, progress, func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) }, end)
}

// beat calls alive every interval in which progress has changed.
func beat(interval time.Duration, progress func() uint64, alive func(), end <-chan struct{}) {
	t := time.NewTicker(interval)
	defer t.Stop()
	last := progress()
	for {
		select {
		case <-end:
			return
		case <-t.C:
			if now := progress(); now != last {
				last = now
				alive()
			}
		}
	}
}
