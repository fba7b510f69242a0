/* The kernel's half of the stand-in for PF_RING: see README.md beside pfring.h. */
#ifndef PFRING_STUB_LINUX_H
#define PFRING_STUB_LINUX_H

#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>

struct pfring_extended_pkthdr {
	uint64_t timestamp_ns;
	int32_t if_index;
};

struct pfring_pkthdr {
	struct timeval ts;
	uint32_t caplen;
	uint32_t len;
	struct pfring_extended_pkthdr extended_hdr;
};

typedef enum {
	cluster_per_flow,
	cluster_round_robin,
	cluster_per_flow_2_tuple,
	cluster_per_flow_4_tuple,
	cluster_per_flow_5_tuple,
	cluster_per_flow_tcp_5_tuple
} cluster_type;

typedef enum { rx_and_tx_direction, rx_only_direction, tx_only_direction } packet_direction;

typedef enum { send_and_recv_mode, send_only_mode, recv_only_mode } socket_mode;

#endif
