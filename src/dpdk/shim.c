/* The inline functions and macros of DPDK that Rust needs, as functions. None is called per packet on the fast path
 * but slr_mbuf_free, which costs less than what it does. */
#define _GNU_SOURCE
#include <stdio.h>

#include "wrapper.h"

#define SLR_WIDTH(field, bytes) \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (bytes), "mbuf field " #field " changed its width")
SLR_WIDTH(buf_addr, sizeof(void *));
SLR_WIDTH(data_off, 2);
SLR_WIDTH(nb_segs, 2);
SLR_WIDTH(port, 2);
SLR_WIDTH(ol_flags, 8);
SLR_WIDTH(pkt_len, 4);
SLR_WIDTH(data_len, 2);
SLR_WIDTH(buf_len, 2);
SLR_WIDTH(next, sizeof(void *));

int slr_errno(void)
{
	return rte_errno;
}

struct rte_mbuf *slr_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void slr_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

bool slr_link(uint16_t port, uint32_t *mbps)
{
	struct rte_eth_link link = {0};

	if (rte_eth_link_get_nowait(port, &link) != 0)
		return false;
	*mbps = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}

static void (*log_sink)(uint32_t level, const char *text, size_t len);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_sink(level < 0 ? RTE_LOG_ERR : (uint32_t)level, text, len);
	return (ssize_t)len;
}

int slr_log_to(void (*sink)(uint32_t level, const char *text, size_t len))
{
	cookie_io_functions_t functions = {.write = log_write};
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", functions);
	return stream == NULL ? -1 : rte_openlog_stream(stream);
}
