/* Takes IP-in-IP tunnels off at a host server of the lab: IPv4 or IPv6 in IPv4 or IPv6. It stands in for the host agent, and
 * runs in the kernel as an XDP program, because not every kernel has tunnel interfaces.
 *
 * Fragments of outer packets pass: the kernel puts them together, and socat takes the tunnel off what comes of it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

static long (*const adjust_head)(struct xdp_md *context, int bytes) = (void *)BPF_FUNC_xdp_adjust_head;

#define BIG_ENDIAN_16(value) __builtin_bswap16(value)

/* Length of the outer header in front of a packet of protocol *inner, or 0 where there is no tunnel to take off. */
static __always_inline int outer_length(const void *packet, const void *end, __u16 ethertype, __u8 *inner)
{
	if (ethertype == BIG_ENDIAN_16(ETH_P_IP)) {
		const struct iphdr *outer = packet;

		if ((const void *)(outer + 1) > end || outer->ihl != 5 || outer->frag_off & BIG_ENDIAN_16(0x3fff))
			return 0;
		*inner = outer->protocol;
		return sizeof(*outer);
	}
	if (ethertype == BIG_ENDIAN_16(ETH_P_IPV6)) {
		const struct ipv6hdr *outer = packet;

		if ((const void *)(outer + 1) > end)
			return 0;
		*inner = outer->nexthdr;
		return sizeof(*outer);
	}
	return 0;
}

__attribute__((section("xdp"), used)) int decapsulate(struct xdp_md *context)
{
	const struct ethhdr *frame = (void *)(long)context->data;
	const void *end = (void *)(long)context->data_end;
	struct ethhdr header, *start;
	__u8 inner = 0;
	int length;

	if ((const void *)(frame + 1) > end)
		return XDP_PASS;
	header = *frame;
	length = outer_length(frame + 1, end, header.h_proto, &inner);
	if (length == 0 || (inner != IPPROTO_IPIP && inner != IPPROTO_IPV6))
		return XDP_PASS;
	header.h_proto = BIG_ENDIAN_16(inner == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6);

	if (adjust_head(context, length) != 0)
		return XDP_DROP;
	start = (void *)(long)context->data;
	if ((const void *)(start + 1) > (const void *)(long)context->data_end)
		return XDP_DROP;
	*start = header;
	return XDP_PASS;
}
