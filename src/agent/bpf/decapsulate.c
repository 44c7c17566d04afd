/* Takes routers' tunnels off in the kernel of a host server, before the network stack sees the packet.
 *
 *   frame ── outer address is ours? ── no ──────────────────────────────► as it was
 *              │ a tunnel of a kind that we take?
 *              │ a fragment: the stack puts it together, and tun.rs takes the tunnel off
 *              ▼
 *            from a router? for a virtual host of ours? ── no ──► dropped and counted
 *              ▼
 *            congestion mark carried over, outer header cut out ─────────► to the stack, as if it had come so
 *
 * One walk with two faces: `tc` works on a socket buffer behind GRO and on every device; `xdp` on the bare frame, which
 * MPLS needs. The numbers below are those of ebpf.rs.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define BE16(value) ((__u16)__builtin_bswap16(value))
#define BE32(value) __builtin_bswap32(value)

/* Since Linux 6.3. */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

/* Most that stands in front of what we look at of an inner packet, and that itself. */
#define HEADERS (sizeof(struct ethhdr) + 60 + sizeof(struct udphdr) + 4 + sizeof(struct ipv6hdr))

static void *(*const lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const pull_data)(struct __sk_buff *, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*const adjust_room)(struct __sk_buff *, __s32, __u32 mode, __u64 flags) = (void *)BPF_FUNC_skb_adjust_room;
static long (*const csum_level)(struct __sk_buff *, __u64 level) = (void *)BPF_FUNC_csum_level;
static long (*const change_proto)(struct __sk_buff *, __be16, __u64 flags) = (void *)BPF_FUNC_skb_change_proto;
static long (*const store_bytes)(struct __sk_buff *, __u32 offset, const void *, __u32 length, __u64 flags) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*const adjust_head)(struct xdp_md *, int bytes) = (void *)BPF_FUNC_xdp_adjust_head;

/* IPv4 addresses are mapped into IPv6 (RFC 4291 section 2.5.5.2) wherever addresses are keys. */
struct address {
	__u32 word[4];
};

struct prefix {
	__u32 length;
	struct address address;
};

/* Packets and bytes that have come in and gone out. */
struct traffic {
	__u64 packets_in, bytes_in, packets_out, bytes_out;
};

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

#define MAP(name, kind, key, value, entries, flags) \
	struct bpf_map_def SECTION("maps") name = { kind, sizeof(key), sizeof(value), entries, flags }

/* Single addresses are in one table for all uses; prefixes, which take longer to find, have tables of their own. */
struct known {
	__u32 uses;
	__u32 host;
};

enum { ROUTER = 1, HOST = 2 };

/* No virtual host's number. */
#define NOBODY (~0u)

MAP(addresses, BPF_MAP_TYPE_HASH, struct address, struct known, 1, 0);
MAP(routers, BPF_MAP_TYPE_LPM_TRIE, struct prefix, __u8, 1, BPF_F_NO_PREALLOC);
MAP(virtual_hosts, BPF_MAP_TYPE_LPM_TRIE, struct prefix, __u32, 1, BPF_F_NO_PREALLOC);
MAP(outcomes, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 16, 0);
MAP(traffic, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct traffic, 1, 0);

/* Bits of kinds that are taken, by their outcome; the UDP port of GUE and the MPLS label. */
volatile const __u32 kinds = 0;
volatile const __u16 gue_port = 6080;
volatile const __u32 mpls_label = 0;

/* Where tunnels end, the first of their senders, and, where they are few, single addresses of virtual hosts. What is known
 * when the program is loaded costs it a comparison, and no look into a table.
 */
#define LIST_MAX 16
volatile const __u32 end_count = 0;
volatile const struct address ends[LIST_MAX] = {};
volatile const __u32 sender_count = 0;
volatile const struct address senders[LIST_MAX] = {};
volatile const __u32 host_count = 0;
volatile const struct address hosts[LIST_MAX] = {};
volatile const __u32 host_numbers[LIST_MAX] = {};

/* Whose labels are taken, if not everybody's: MAC addresses as they are in a frame, with two bytes of zero behind. */
volatile const __u32 label_sender_count = 0;
volatile const __u64 label_senders[LIST_MAX] = {};

/* Uses that prefixes have: only those are looked for among prefixes. */
volatile const __u32 prefix_uses = 0;

enum outcome {
	IPIP,
	GUE,
	GRE,
	MPLS,
	MAC,
	FRAGMENT,
	STRANGER,
	NO_VIRTUAL_HOST,
	HEADER,
	INNER,
	ECN,
	FAILED,
	NONE, /* no tunnel of ours */
};

/* The ECN field (RFC 3168 section 5). */
enum { ECT_1 = 1, ECT_0 = 2, CE = 3 };

/* A tunnel that has been found. */
struct tunnel {
	__u32 length; /* bytes of the outer IP header, or of the label */
	__u32 shim; /* bytes between that and the inner packet */
	__u32 bytes; /* of the inner packet, as it says itself */
	__u32 host;
	__u16 inner; /* its EtherType, in network order */
	__u8 kind;
	__u8 congestion; /* the ECN field: the outer packet's, later the one that the inner packet is to have */
	__u8 mark; /* it has another now */
};

INLINE void count(__u32 outcome)
{
	__u64 *counter = lookup(&outcomes, &outcome);

	if (counter)
		*counter += 1;
}

INLINE void map_v4(struct address *address, __be32 v4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = BE32(0xffff);
	address->word[3] = v4;
}

INLINE void map_v6(struct address *address, const struct in6_addr *v6)
{
	__builtin_memcpy(address, v6, sizeof(*address));
}

/* `packet` + `offset`, of 0 to 63. The verifier wants to see the bound where it is used, and the compiler must not see that it
 * holds already.
 */
INLINE const void *behind(const void *packet, __u32 offset)
{
	__asm__ volatile("" : "+r"(offset));
	return packet + (offset & 63);
}

/* A position in a list, or what is none. Of the two, the first knows that three words of four are the same for all. */
INLINE __u32 find_v4(__be32 v4, const volatile struct address *list, __u32 count)
{
#pragma unroll
	for (__u32 at = 0; at < LIST_MAX; at++) {
		if (at < count && v4 == list[at].word[3] && list[at].word[2] == BE32(0xffff) && !list[at].word[1] &&
		    !list[at].word[0])
			return at;
	}
	return LIST_MAX;
}

INLINE __u32 find_v6(const struct address *v6, const volatile struct address *list, __u32 count)
{
#pragma unroll
	for (__u32 at = 0; at < LIST_MAX; at++) {
		if (at < count && v6->word[3] == list[at].word[3] && v6->word[2] == list[at].word[2] &&
		    v6->word[1] == list[at].word[1] && v6->word[0] == list[at].word[0])
			return at;
	}
	return LIST_MAX;
}

/* Whether an address that is in no list is a router's. */
INLINE int is_other_router(const struct prefix *prefix)
{
	const struct known *known = lookup(&addresses, &prefix->address);

	if (known && known->uses & ROUTER)
		return 1;
	return prefix_uses & ROUTER && lookup(&routers, prefix);
}

INLINE int is_router_v4(__be32 v4)
{
	struct prefix prefix = { .length = 128 };

	if (find_v4(v4, senders, sender_count) < LIST_MAX)
		return 1;
	map_v4(&prefix.address, v4);
	return is_other_router(&prefix);
}

INLINE int is_router_v6(const struct in6_addr *v6)
{
	struct prefix prefix = { .length = 128 };

	map_v6(&prefix.address, v6);
	return find_v6(&prefix.address, senders, sender_count) < LIST_MAX || is_other_router(&prefix);
}

/* Whether labels in this frame, which starts in front of `packet`, are to be taken. */
INLINE int may_send_labels(const void *packet)
{
	const struct ethhdr *frame = packet - sizeof(*frame);
	__u64 source = 0;

	if (!label_sender_count)
		return 1;
	__builtin_memcpy(&source, frame->h_source, ETH_ALEN);
#pragma unroll
	for (__u32 at = 0; at < LIST_MAX; at++) {
		if (at < label_sender_count && source == label_senders[at])
			return 1;
	}
	return 0;
}

/* The number of the virtual host's prefix that an address in no list lies in, or NOBODY. */
INLINE __u32 other_host(const struct prefix *prefix)
{
	const struct known *known;
	const __u32 *host = 0;

	if (!host_count) {
		known = lookup(&addresses, &prefix->address);
		if (known && known->uses & HOST)
			return known->host;
	}
	if (prefix_uses & HOST)
		host = lookup(&virtual_hosts, prefix);
	return host ? *host : NOBODY;
}

INLINE __u32 host_v4(__be32 v4)
{
	struct prefix prefix = { .length = 128 };
	__u32 at = find_v4(v4, hosts, host_count);

	if (at < LIST_MAX)
		return host_numbers[at];
	map_v4(&prefix.address, v4);
	return other_host(&prefix);
}

INLINE __u32 host_v6(const struct in6_addr *v6)
{
	struct prefix prefix = { .length = 128 };
	__u32 at;

	map_v6(&prefix.address, v6);
	at = find_v6(&prefix.address, hosts, host_count);
	return at < LIST_MAX ? host_numbers[at] : other_host(&prefix);
}

/* What is behind the outer IP header at `shim`: sets kind, inner and shim. */
INLINE int shim_of(const void *shim, const void *end, __u8 protocol, struct tunnel *tunnel)
{
	const __u8 *bytes = shim;
	const struct udphdr *udp = shim;

	tunnel->shim = 0;
	switch (protocol) {
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
		tunnel->kind = IPIP;
		tunnel->inner = protocol == IPPROTO_IPIP ? BE16(ETH_P_IP) : BE16(ETH_P_IPV6);
		return kinds & 1 << IPIP ? IPIP : NONE;
	case IPPROTO_GRE:
		if (!(kinds & 1 << GRE))
			return NONE;
		if (bytes + 4 > (const __u8 *)end)
			return HEADER;
		tunnel->kind = GRE;
		tunnel->shim = 4;
		tunnel->inner = *(const __u16 *)(bytes + 2);
		/* RFC 2784 section 2.3: what a receiver must know of to go on, and the version. */
		if (bytes[0] & 0xfc || bytes[1] & 0x07)
			return HEADER;
		return tunnel->inner == BE16(ETH_P_IP) || tunnel->inner == BE16(ETH_P_IPV6) ? GRE : HEADER;
	}
	if (!(kinds & 1 << GUE) || (const void *)(udp + 1) > end || udp->dest != BE16(gue_port))
		return NONE;
	tunnel->kind = GUE;
	tunnel->shim = sizeof(*udp);
	bytes += sizeof(*udp);
	if (bytes + 4 > (const __u8 *)end)
		return HEADER;
	if (bytes[0] >> 4 == 4 || bytes[0] >> 4 == 6) {
		tunnel->inner = bytes[0] >> 4 == 4 ? BE16(ETH_P_IP) : BE16(ETH_P_IPV6);
		return GUE;
	}
	/* Variant 0 without extension fields and flags, and no control message. */
	if (bytes[0] != 0 || bytes[2] != 0 || bytes[3] != 0)
		return HEADER;
	tunnel->shim += 4;
	tunnel->inner = bytes[1] == IPPROTO_IPIP ? BE16(ETH_P_IP) : BE16(ETH_P_IPV6);
	return bytes[1] == IPPROTO_IPIP || bytes[1] == IPPROTO_IPV6 ? GUE : HEADER;
}

/* Whose the inner packet is, and how it is to be marked. */
INLINE int inner_of(const void *packet, const void *end, struct tunnel *tunnel)
{
	__u8 own, outer = tunnel->congestion;

	if (tunnel->inner == BE16(ETH_P_IP)) {
		const struct iphdr *inner = packet;

		if ((const void *)(inner + 1) > end || inner->version != 4)
			return INNER;
		tunnel->host = host_v4(inner->daddr);
		tunnel->bytes = BE16(inner->tot_len);
		own = inner->tos & 3;
	} else {
		const struct ipv6hdr *inner = packet;

		if ((const void *)(inner + 1) > end || inner->version != 6)
			return INNER;
		tunnel->host = host_v6(&inner->daddr);
		tunnel->bytes = BE16(inner->payload_len) + sizeof(*inner);
		own = inner->flow_lbl[0] >> 4 & 3;
	}
	if (tunnel->host == NOBODY)
		return NO_VIRTUAL_HOST;
	/* RFC 6040 section 4.2. */
	if (outer == CE && own == 0)
		return ECN;
	tunnel->congestion = outer == CE || (outer == ECT_1 && own == ECT_0) ? outer : own;
	tunnel->mark = tunnel->congestion != own;
	return tunnel->kind;
}

INLINE int may_be_tunnel(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE || protocol == IPPROTO_UDP ||
	       protocol == IPPROTO_FRAGMENT;
}

/* The walk; `packet` starts behind the Ethernet header. */
INLINE int tunnel_of(const void *packet, const void *end, __u16 ethertype, struct tunnel *tunnel)
{
	const struct in6_addr *source_v6 = 0;
	__be32 source_v4 = 0;
	__u8 protocol, fragment;
	int outcome;

	if (ethertype == BE16(ETH_P_IP)) {
		const struct iphdr *v4 = packet;

		if ((const void *)(v4 + 1) > end || v4->version != 4 || v4->ihl < 5)
			return NONE;
		protocol = v4->protocol;
		if (!may_be_tunnel(protocol) || find_v4(v4->daddr, ends, end_count) == LIST_MAX)
			return NONE;
		fragment = (v4->frag_off & BE16(0x3fff)) != 0;
		source_v4 = v4->saddr;
		tunnel->length = v4->ihl * 4;
		tunnel->congestion = v4->tos & 3;
	} else if (ethertype == BE16(ETH_P_IPV6)) {
		const struct ipv6hdr *v6 = packet;
		struct address destination;

		if ((const void *)(v6 + 1) > end)
			return NONE;
		protocol = v6->nexthdr;
		map_v6(&destination, &v6->daddr);
		if (!may_be_tunnel(protocol) || find_v6(&destination, ends, end_count) == LIST_MAX)
			return NONE;
		fragment = protocol == IPPROTO_FRAGMENT;
		source_v6 = &v6->saddr;
		tunnel->length = sizeof(*v6);
		tunnel->congestion = v6->flow_lbl[0] >> 4 & 3;
	} else if (ethertype == BE16(ETH_P_MPLS_UC) && kinds & 1 << MPLS) {
		const __be32 *label = packet;

		if ((const void *)(label + 2) > end || BE32(*label) >> 12 != mpls_label)
			return NONE;
		if (!may_send_labels(packet))
			return STRANGER;
		/* The bottom of its stack. */
		if (!(BE32(*label) & 1 << 8))
			return HEADER;
		tunnel->kind = MPLS;
		tunnel->length = sizeof(*label);
		tunnel->shim = 0;
		tunnel->congestion = 0;
		tunnel->inner = *(const __u8 *)(label + 1) >> 4 == 4 ? BE16(ETH_P_IP) : BE16(ETH_P_IPV6);
		return inner_of(label + 1, end, tunnel);
	} else {
		return NONE;
	}
	/* Of what it is one, is told once it is whole. */
	if (fragment)
		return FRAGMENT;
	packet = behind(packet, tunnel->length);
	outcome = shim_of(packet, end, protocol, tunnel);
	if (outcome == NONE)
		return NONE;
	if (!(source_v6 ? is_router_v6(source_v6) : is_router_v4(source_v4)))
		return STRANGER;
	if (outcome == HEADER)
		return HEADER;
	return inner_of(behind(packet, tunnel->shim), end, tunnel);
}

/* A packet for a virtual host that came as it is (`mac`). */
INLINE int plain(const void *packet, const void *end, __u16 ethertype, struct tunnel *tunnel)
{
	int outcome;

	if (!(kinds & 1 << MAC) || (ethertype != BE16(ETH_P_IP) && ethertype != BE16(ETH_P_IPV6)))
		return NONE;
	tunnel->kind = MAC;
	tunnel->inner = ethertype;
	tunnel->congestion = 0;
	outcome = inner_of(packet, end, tunnel);
	return outcome == MAC ? MAC : NONE;
}

INLINE void count_in(const struct tunnel *tunnel)
{
	struct traffic *of = lookup(&traffic, &tunnel->host);

	if (of) {
		of->packets_in += 1;
		of->bytes_in += tunnel->bytes;
	}
}

/* The second byte of an IPv6 header, with the congestion mark. */
INLINE __u8 class_byte(const struct ipv6hdr *ip, const struct tunnel *tunnel)
{
	return (ip->flow_lbl[0] & 0xcf) | tunnel->congestion << 4;
}

/* Writes the congestion mark into the inner packet. */
INLINE void mark(void *packet, const void *end, const struct tunnel *tunnel)
{
	if (tunnel->inner == BE16(ETH_P_IP)) {
		struct iphdr *inner = packet;
		__u32 sum;

		if ((const void *)(inner + 1) > end)
			return;
		/* RFC 1624 equation 3; only the low two bits change. */
		sum = (__u16)~BE16(inner->check) + (__u16)~(inner->tos & 3) + tunnel->congestion;
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		inner->check = BE16((__u16)~sum);
		inner->tos = (inner->tos & ~3) | tunnel->congestion;
	} else {
		struct ipv6hdr *inner = packet;

		if ((const void *)(inner + 1) <= end)
			inner->flow_lbl[0] = class_byte(inner, tunnel);
	}
}

/* The same in a socket buffer, whose checksum may be of the whole packet: the IPv4 header's sum stays what it was, that of an
 * IPv6 header does not.
 */
INLINE void mark_buffer(struct __sk_buff *skb, const struct tunnel *tunnel)
{
	const __u32 start = sizeof(struct ethhdr);
	const void *packet = (void *)(long)skb->data + start;
	const void *end = (void *)(long)skb->data_end;
	struct iphdr v4;
	__u8 byte;

	/* Written by the helper: a program that writes by itself has to look first, at each packet, whether it may. */
	if (tunnel->inner == BE16(ETH_P_IP)) {
		if (packet + sizeof(v4) > end)
			return;
		v4 = *(const struct iphdr *)packet;
		mark(&v4, &v4 + 1, tunnel);
		store_bytes(skb, start, &v4, sizeof(v4), 0);
	} else if (packet + sizeof(struct ipv6hdr) <= end) {
		byte = class_byte(packet, tunnel);
		store_bytes(skb, start + 1, &byte, 1, BPF_F_RECOMPUTE_CSUM);
	}
}

SECTION("classifier/tc") int take_off_tc(struct __sk_buff *skb)
{
	struct tunnel tunnel = {};
	void *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET, l3;
	__u16 ethertype = skb->protocol;
	__s32 length;
	int outcome;

	/* What lies outside of the buffer's first piece is fetched. */
	if (start + HEADERS > end && end - start < skb->len) {
		pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
		start = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	if (start + sizeof(struct ethhdr) > end)
		return TC_ACT_UNSPEC;
	outcome = tunnel_of(start + sizeof(struct ethhdr), end, ethertype, &tunnel);
	if (outcome == NONE) {
		if (plain(start + sizeof(struct ethhdr), end, ethertype, &tunnel) == NONE)
			return TC_ACT_UNSPEC;
		outcome = MAC;
	}
	if (outcome > MAC) {
		count(outcome);
		return outcome == FRAGMENT ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	}
	if (outcome != MAC) {
		length = tunnel.length + tunnel.shim;
		/* What a network card has verified stays so; of the sums that it has, the first is the tunnel's own. */
		if (outcome == GUE)
			csum_level(skb, BPF_CSUM_LEVEL_DEC);
		if (tunnel.inner != ethertype) {
			l3 = tunnel.inner == BE16(ETH_P_IP) ? DECAP_L3_IPV4 : DECAP_L3_IPV6;
			if (adjust_room(skb, -length, BPF_ADJ_ROOM_MAC, flags | l3) == 0)
				goto off;
			/* Before Linux 6.3: exchange the outer header for one of the inner family, of 20 bytes more or less. */
			if (change_proto(skb, tunnel.inner, 0) != 0)
				goto failed;
			length += tunnel.inner == BE16(ETH_P_IP) ? -20 : 20;
		}
		if (adjust_room(skb, -length, BPF_ADJ_ROOM_MAC, flags) != 0)
			goto failed;
	}
off:
	if (tunnel.mark)
		mark_buffer(skb, &tunnel);
	count(outcome);
	count_in(&tunnel);
	return TC_ACT_UNSPEC;
failed:
	count(FAILED);
	return TC_ACT_SHOT;
}

SECTION("xdp") int take_off_xdp(struct xdp_md *context)
{
	struct tunnel tunnel = {};
	struct ethhdr *frame = (void *)(long)context->data, header;
	const void *end = (void *)(long)context->data_end;
	int outcome;

	if ((const void *)(frame + 1) > end)
		return XDP_PASS;
	header = *frame;
	outcome = tunnel_of(frame + 1, end, header.h_proto, &tunnel);
	if (outcome == NONE) {
		if (plain(frame + 1, end, header.h_proto, &tunnel) == NONE)
			return XDP_PASS;
		outcome = MAC;
	}
	if (outcome > MAC) {
		count(outcome);
		return outcome == FRAGMENT ? XDP_PASS : XDP_DROP;
	}
	if (outcome != MAC) {
		if (adjust_head(context, tunnel.length + tunnel.shim) != 0)
			goto failed;
		frame = (void *)(long)context->data;
		end = (void *)(long)context->data_end;
		if ((const void *)(frame + 1) > end)
			goto failed;
		header.h_proto = tunnel.inner;
		*frame = header;
		if (tunnel.mark)
			mark(frame + 1, end, &tunnel);
	}
	count(outcome);
	count_in(&tunnel);
	return XDP_PASS;
failed:
	count(FAILED);
	return XDP_DROP;
}

/* Counts what leaves from virtual hosts; `tc` at egress. */
SECTION("classifier/leaving") int count_leaving(struct __sk_buff *skb)
{
	const void *start = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct traffic *of;
	__u32 host;

	start += sizeof(struct ethhdr);
	if (skb->protocol == BE16(ETH_P_IP)) {
		const struct iphdr *ip = start;

		if ((const void *)(ip + 1) > end)
			return TC_ACT_UNSPEC;
		host = host_v4(ip->saddr);
	} else if (skb->protocol == BE16(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = start;

		if ((const void *)(ip + 1) > end)
			return TC_ACT_UNSPEC;
		host = host_v6(&ip->saddr);
	} else {
		return TC_ACT_UNSPEC;
	}
	of = lookup(&traffic, &host);
	if (of) {
		of->packets_out += skb->gso_segs ? skb->gso_segs : 1;
		of->bytes_out += skb->len - sizeof(struct ethhdr);
	}
	return TC_ACT_UNSPEC;
}

char SECTION("license") license_of_this[] = "Dual MIT/GPL";
