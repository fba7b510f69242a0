/* Every call fails as it does where the kernel has no PF_RING: see README.md. */
#include "pfring.h"

#include <errno.h>
#include <stddef.h>

static int fail(void) {
	errno = EAFNOSUPPORT;
	return -1;
}

pfring *pfring_open(const char *device, u_int32_t caplen, u_int32_t flags) {
	(void)device, (void)caplen, (void)flags;
	fail();
	return NULL;
}

void pfring_close(pfring *ring) { (void)ring; }

int pfring_recv(pfring *ring, u_char **buffer, u_int len, struct pfring_pkthdr *header, uint8_t wait) {
	(void)ring, (void)buffer, (void)len, (void)header, (void)wait;
	return fail();
}

int pfring_send(pfring *ring, char *packet, u_int len, uint8_t flush) {
	(void)ring, (void)packet, (void)len, (void)flush;
	return fail();
}

int pfring_stats(pfring *ring, pfring_stat *stats) {
	(void)ring, (void)stats;
	return fail();
}

int pfring_set_cluster(pfring *ring, u_int id, cluster_type type) {
	(void)ring, (void)id, (void)type;
	return fail();
}

int pfring_remove_from_cluster(pfring *ring) {
	(void)ring;
	return fail();
}

int pfring_set_sampling_rate(pfring *ring, u_int32_t rate) {
	(void)ring, (void)rate;
	return fail();
}

int pfring_set_poll_watermark(pfring *ring, u_int16_t watermark) {
	(void)ring, (void)watermark;
	return fail();
}

int pfring_set_poll_duration(pfring *ring, u_int duration) {
	(void)ring, (void)duration;
	return fail();
}

void pfring_config(u_short cpu_percentage) { (void)cpu_percentage; }

int pfring_set_bpf_filter(pfring *ring, char *filter) {
	(void)ring, (void)filter;
	return fail();
}

int pfring_remove_bpf_filter(pfring *ring) {
	(void)ring;
	return fail();
}

int pfring_enable_ring(pfring *ring) {
	(void)ring;
	return fail();
}

int pfring_disable_ring(pfring *ring) {
	(void)ring;
	return fail();
}

int pfring_set_direction(pfring *ring, packet_direction direction) {
	(void)ring, (void)direction;
	return fail();
}

int pfring_set_socket_mode(pfring *ring, socket_mode mode) {
	(void)ring, (void)mode;
	return fail();
}

int pfring_set_application_name(pfring *ring, char *name) {
	(void)ring, (void)name;
	return fail();
}
