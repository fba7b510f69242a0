//go:build pfring

package main

// capture_pfring.go captures with ntop's PF_RING, in a binary built with -tags pfring.
//
// In: a device or one of PF_RING's own names (zc:eth0, eth0@1).
// Out: batches, as from libpcap; see packetSource.
//
// Rules: gopacket's pfring can only wait for the next packet, without end and without being called off. So a goroutine
// reads the ring into a batch of the source's own, and fill exchanges that for an empty one every liveBatchAge. The
// goroutine of a ring that has gone silent is left to the end of the process, and so is the ring then.

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gopacket/gopacket/pfring"
)

// pfringMissing returns nil: this binary has PF_RING.
func pfringMissing() error { return nil }

// pfringSource is a device opened with PF_RING.
type pfringSource struct {
	ring *pfring.Ring
	full chan struct{} // holds one token where held has no room or the reading has ended
	wait *time.Timer

	mu     sync.Mutex
	space  sync.Cond // held was exchanged
	held   liveBatch
	err    error // why the reading has ended
	closed bool
}

// openPFRing opens a device with PF_RING.
func openPFRing(dev string, opt *liveOptions) (packetSource, error) {
	flags := pfring.FlagTimestamp | pfring.FlagLongHeader | pfring.FlagReentrant
	if opt.promisc {
		flags |= pfring.FlagPromisc
	}
	ring, err := pfring.NewRing(dev, uint32(opt.snaplen), flags)
	if err != nil {
		e := &deviceError{msg: fmt.Sprintf("open device %q with PF_RING: %s", dev, strings.TrimPrefix(err.Error(), "pfring NewRing error: "))}
		if strings.Contains(e.msg, "address family") {
			e.hint = "the kernel module pf_ring is not loaded"
		}
		return nil, e
	}
	s := &pfringSource{ring: ring, full: make(chan struct{}, 1), wait: time.NewTimer(liveBatchAge)}
	s.space.L = &s.mu
	size := max(liveBatch64k, opt.snaplen+liveVLANRoom)
	s.held.buf, s.held.packets = make([]byte, 0, size), make([]livePacket, 0, size/64)
	if err := s.setUp(opt); err != nil {
		ring.Close()
		return nil, &deviceError{msg: fmt.Sprintf("open device %q with PF_RING: %v", dev, err)}
	}
	filter := opt.bpf
	if filter == "" {
		filter = kernelFilter(linkEthernet)
	}
	if err := ring.SetBPFFilter(filter); err != nil {
		ring.Close()
		return nil, &deviceError{filter: opt.bpf != "", msg: fmt.Sprintf("bad filter %q (-bpf) for device %q: %v", opt.bpf, dev, err), hint: "the syntax is tcpdump's, see pcap-filter(7)"}
	}
	if err := ring.Enable(); err != nil {
		ring.Close()
		return nil, &deviceError{msg: fmt.Sprintf("open device %q with PF_RING: %v", dev, err)}
	}
	go s.read()
	return s, nil
}

// setUp joins the cluster, whose members get the packets of a flow together, and bounds the ring's own waiting.
func (s *pfringSource) setUp(opt *liveOptions) error {
	if opt.cluster > 0 {
		if err := s.ring.SetCluster(opt.cluster, pfring.ClusterPerFlow2Tuple); err != nil {
			return err
		}
	}
	return errors.Join(s.ring.SetSocketMode(pfring.ReadOnly), s.ring.SetPollDuration(uint(liveBatchAge/time.Millisecond)))
}

// read is the goroutine that reads the ring.
func (s *pfringSource) read() {
	for {
		pkt, ci, err := s.ring.ZeroCopyReadPacketData()
		if err == pfring.NextNoPacketNonblocking {
			s.mu.Lock()
			over := s.closed
			s.mu.Unlock()
			if over {
				s.ring.Close()
				return
			}
			time.Sleep(time.Millisecond) // where the ring does not wait by itself
			continue
		}
		s.mu.Lock()
		if err != nil {
			s.err = fmt.Errorf("read PF_RING: %w", err)
		} else {
			ts := ci.Timestamp.UnixNano()
			if ts == 0 {
				ts = time.Now().UnixNano() // a driver that gives no time
			}
			for !s.held.room(len(pkt)) && !s.closed {
				s.signal()
				s.space.Wait()
			}
			if !s.closed {
				s.held.add(pkt, ts, ci.Length)
			}
		}
		over := s.closed
		s.mu.Unlock()
		if err != nil || over {
			s.signal()
			s.ring.Close()
			return
		}
	}
}

// signal tells fill not to wait for its time.
func (s *pfringSource) signal() {
	select {
	case s.full <- struct{}{}:
	default:
	}
}

func (s *pfringSource) linkType() uint32 { return linkEthernet }

func (s *pfringSource) fill(b *liveBatch) (idle bool, err error) {
	s.wait.Reset(liveBatchAge)
	select {
	case <-s.full:
	case <-s.wait.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.buf, s.held.buf = s.held.buf, b.buf
	b.packets, s.held.packets = s.held.packets, b.packets
	s.space.Signal()
	if s.err != nil {
		s.signal()
	}
	return len(b.packets) == 0, s.err
}

func (s *pfringSource) kernel() (received, dropped, ifDropped uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, 0, 0, s.err // the ring is closed
	}
	st, err := s.ring.Stats()
	return uint32(st.Received), uint32(st.Dropped), 0, err
}

// close lets the reading goroutine close the ring when it next hears of it.
func (s *pfringSource) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.space.Signal()
}
