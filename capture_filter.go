package main

// capture_filter.go is the user's -bpf: libpcap compiles it and libpcap runs it, so that it means what it means to
// tcpdump. The default filter, port 53, is decided by locate instead, which also sees it behind tags and in fragments.

import (
	"fmt"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcap"
)

// bpfFilter compiles one expression for each link type it meets. It belongs to the capture goroutine.
type bpfFilter struct {
	expr string
	last *pcap.BPF
	link uint32
	all  map[uint32]*pcap.BPF // nil for a link type that the expression does not fit
}

// compileFilter checks the expression for Ethernet; the error is a *usageError with libpcap's message.
func compileFilter(expr string) (*bpfFilter, error) {
	f := &bpfFilter{expr: expr, all: make(map[uint32]*pcap.BPF)}
	if err := f.use(linkEthernet); err != nil {
		return nil, &usageError{msg: fmt.Sprintf("bad filter %q (-bpf): %s", expr, strings.TrimSpace(err.Error())), hint: "the syntax is tcpdump's, see pcap-filter(7)"}
	}
	return f, nil
}

// use makes the program for a link type the current one.
func (f *bpfFilter) use(link uint32) error {
	p, ok := f.all[link]
	if !ok {
		var err error
		p, err = pcap.NewBPF(layers.LinkType(link), maxFrame, f.expr)
		f.all[link] = p
		if err != nil {
			return err
		}
	}
	f.last, f.link = p, link
	return nil
}

// matches runs the filter over one frame. An expression that has no meaning for a link type matches none of its frames.
func (f *bpfFilter) matches(frame []byte, wire int, link uint32) bool {
	if f.link != link || f.last == nil {
		if f.use(link) != nil {
			return false
		}
	}
	if f.last == nil || len(frame) == 0 {
		return false
	}
	return f.last.Matches(gopacket.CaptureInfo{CaptureLength: len(frame), Length: wire}, frame)
}

// linkName names a link type for messages, by libpcap's name where it has one.
func linkName(lt uint32) string {
	if n, ok := linkNames[lt]; ok {
		return fmt.Sprintf("%d (%s)", lt, n)
	}
	return fmt.Sprint(lt)
}
