/* A stand-in for ntop's pfring.h, to compile against: see README.md. */
#ifndef PFRING_STUB_H
#define PFRING_STUB_H

#include <linux/pf_ring.h>

#define PF_RING_REENTRANT         (1 << 0)
#define PF_RING_LONG_HEADER       (1 << 1)
#define PF_RING_PROMISC           (1 << 2)
#define PF_RING_TIMESTAMP         (1 << 3)
#define PF_RING_HW_TIMESTAMP      (1 << 4)
#define PF_RING_DNA_SYMMETRIC_RSS (1 << 5)

typedef struct pfring_stub pfring;

typedef struct {
	uint64_t recv;
	uint64_t drop;
} pfring_stat;

pfring *pfring_open(const char *device, u_int32_t caplen, u_int32_t flags);
void pfring_close(pfring *ring);
int pfring_recv(pfring *ring, u_char **buffer, u_int len, struct pfring_pkthdr *header, uint8_t wait);
int pfring_send(pfring *ring, char *packet, u_int len, uint8_t flush);
int pfring_stats(pfring *ring, pfring_stat *stats);
int pfring_set_cluster(pfring *ring, u_int id, cluster_type type);
int pfring_remove_from_cluster(pfring *ring);
int pfring_set_sampling_rate(pfring *ring, u_int32_t rate);
int pfring_set_poll_watermark(pfring *ring, u_int16_t watermark);
int pfring_set_poll_duration(pfring *ring, u_int duration);
void pfring_config(u_short cpu_percentage);
int pfring_set_bpf_filter(pfring *ring, char *filter);
int pfring_remove_bpf_filter(pfring *ring);
int pfring_enable_ring(pfring *ring);
int pfring_disable_ring(pfring *ring);
int pfring_set_direction(pfring *ring, packet_direction direction);
int pfring_set_socket_mode(pfring *ring, socket_mode mode);
int pfring_set_application_name(pfring *ring, char *name);

#endif
