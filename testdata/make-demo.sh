#!/bin/sh
# Make testdata/pcap/demo.pcap out of other captures there, in the order of their times: the first one's file header, and the
# packets of all. They are of one kind (classic pcap, µs, Ethernet). Run it after make-captures.sh.
set -eu
cd "$(dirname "$0")/pcap"
{
	cat udp-v4.pcap
	for name in nxdomain servfail unanswered; do
		tail -c +25 "$name.pcap"
	done
} >demo.pcap
