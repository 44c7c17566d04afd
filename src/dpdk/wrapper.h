/* What Rust sees of DPDK: the headers that build.rs binds, and what C must say because it is inline or a macro there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>

/* Where the fields that Rust reads and writes without a call lie; shim.c asserts their widths. */
enum slr_mbuf_offset {
	SLR_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SLR_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SLR_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SLR_MBUF_PORT = offsetof(struct rte_mbuf, port),
	SLR_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SLR_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SLR_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SLR_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SLR_MBUF_NEXT = offsetof(struct rte_mbuf, next),
};

static const uint16_t SLR_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t SLR_MAX_PORTS = RTE_MAX_ETHPORTS;
static const uint32_t SLR_MAX_LCORES = RTE_MAX_LCORE;
static const uint64_t SLR_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SLR_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SLR_RSS_FLOWS = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

/* The thread's rte_errno, which is a macro over a thread-local. */
int slr_errno(void);

/* An empty buffer, or NULL. */
struct rte_mbuf *slr_mbuf_alloc(struct rte_mempool *pool);

/* Frees a whole chain. */
void slr_mbuf_free(struct rte_mbuf *mbuf);

/* True when the link is up; *mbps is RTE_ETH_SPEED_NUM_UNKNOWN where the driver cannot tell. */
bool slr_link(uint16_t port, uint32_t *mbps);

/* Sends every log line to `sink` instead of the console and syslog. Level 1 is the gravest, RTE_LOG_DEBUG the least. */
int slr_log_to(void (*sink)(uint32_t level, const char *text, size_t len));
