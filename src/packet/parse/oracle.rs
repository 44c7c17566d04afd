//! The parser against another one: `etherparse` slices the same frame strictly, and wherever both let it in they must agree.

use super::*;
use crate::packet::ipv4::DONT_FRAGMENT;
use crate::packet::plain::{self, Plain};
use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Options, Ipv6Extensions, Ipv6FragmentHeader, Ipv6RawExtHeader,
    Ipv6RoutingExtensions, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId,
};
use proptest::prelude::*;

/// What a generated frame is made of.
#[derive(Clone, Debug)]
struct Recipe {
    tags: usize,
    v6: bool,
    /// IPv4: 32-bit words of options.
    options: usize,
    /// IPv6: which extension headers; hop-by-hop, destination, routing, authentication, destination again.
    extensions: [bool; 5],
    /// Their length beyond the shortest, in units of 8 bytes.
    extension_len: usize,
    /// Fragment offset in units of 8 bytes and whether more follow. IPv6: the fragment header is there.
    fragment: Option<(u16, bool)>,
    protocol: u8,
    /// TCP: 32-bit words of options.
    tcp_options: usize,
    ports: (u16, u16),
    tcp_flags: u8,
    data: Vec<u8>,
    padding: usize,
}

fn recipe(fragment: impl Strategy<Value = Option<(u16, bool)>>) -> impl Strategy<Value = Recipe> {
    let protocol =
        prop_oneof![6 => Just(6u8), 4 => Just(17), 1 => Just(1), 1 => Just(58), 1 => Just(47), 1 => Just(50)];
    let network = (0..3usize, any::<bool>(), 0..11usize, any::<[bool; 5]>(), 0..4usize, fragment);
    let transport = (protocol, 0..11usize, any::<(u16, u16)>(), any::<u8>(), prop::collection::vec(any::<u8>(), 8..40));
    (network, transport, 0..20usize).prop_map(|(network, transport, padding)| {
        let (tags, v6, options, extensions, extension_len, fragment) = network;
        let (protocol, tcp_options, ports, tcp_flags, data) = transport;
        Recipe {
            tags,
            v6,
            options,
            extensions,
            extension_len,
            fragment,
            protocol,
            tcp_options,
            ports,
            tcp_flags,
            data,
            padding,
        }
    })
}

impl Recipe {
    fn segment(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        if self.protocol == protocol::TCP {
            let mut tcp = etherparse::TcpHeader::new(self.ports.0, self.ports.1, 1, 0xffff);
            tcp.set_options_raw(&vec![1; self.tcp_options * 4]).expect("at most 40 bytes");
            tcp.write(&mut segment).expect("a vector takes all");
            segment[13] = self.tcp_flags;
        } else if self.protocol == protocol::UDP {
            let udp = etherparse::UdpHeader {
                source_port: self.ports.0,
                destination_port: self.ports.1,
                length: 8 + self.data.len() as u16,
                checksum: 0,
            };
            udp.write(&mut segment).expect("a vector takes all");
        } else {
            // Not a time stamp message, which etherparse checks further.
            segment.push(8);
        }
        segment.extend_from_slice(&self.data);
        segment
    }

    fn ip(&self) -> IpHeaders {
        let unset = IpNumber(0);
        let (offset, more) = self.fragment.unwrap_or_default();
        let offset = IpFragOffset::try_new(offset).expect("13 bits");
        if !self.v6 {
            let options = vec![1; self.options * 4];
            let header = etherparse::Ipv4Header {
                options: Ipv4Options::try_from(&options[..]).expect("at most 40 bytes"),
                fragment_offset: offset,
                more_fragments: more,
                source: [192, 0, 2, 1],
                destination: [198, 51, 100, 7],
                ..Default::default()
            };
            return IpHeaders::Ipv4(header, Default::default());
        }
        let raw = || {
            Ipv6RawExtHeader::new_raw(unset, &vec![0; 6 + self.extension_len * 8]).expect("6 bytes and a multiple of 8")
        };
        let [hop_by_hop, destination, routing, authentication, last] = self.extensions;
        let extensions = Ipv6Extensions {
            hop_by_hop_options: hop_by_hop.then(raw),
            destination_options: destination.then(raw),
            routing: routing
                .then(|| Ipv6RoutingExtensions { routing: raw(), final_destination_options: last.then(raw) }),
            fragment: self.fragment.map(|_| Ipv6FragmentHeader::new(unset, offset, more, 7)),
            auth: authentication.then(|| {
                IpAuthHeader::new(unset, 1, 2, &vec![0; 4 + self.extension_len * 8]).expect("a multiple of 4")
            }),
        };
        let header = etherparse::Ipv6Header { source: [1; 16], destination: [2; 16], ..Default::default() };
        IpHeaders::Ipv6(header, extensions)
    }

    fn frame(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let tag = VlanId::try_new(42).expect("12 bits");
        let builder = match self.tags {
            0 => ethernet.ip(self.ip()),
            1 => ethernet.single_vlan(tag).ip(self.ip()),
            _ => ethernet.double_vlan(tag, tag).ip(self.ip()),
        };
        let mut frame = Vec::new();
        builder.write(&mut frame, IpNumber(self.protocol), &self.segment()).expect("a vector takes all");
        frame.resize(frame.len() + self.padding, 0xee);
        frame
    }
}

/// Packets that `etherparse` reads otherwise, so that there is nothing to compare.
fn reads_otherwise(parsed: &Parsed) -> bool {
    match parsed.family {
        // It walks an authentication header in IPv4 too; here that is the transport protocol.
        Family::V4 => parsed.protocol == protocol::AUTHENTICATION,
        Family::V6 => {
            // It takes payload length 0 as "until the end of the frame".
            parsed.l3_len as usize == Ipv6Header::LEN
                // It walks on into the data of later fragments.
                || matches!(parsed.fragment, Fragment::Later { .. }) && is_extension(parsed.protocol)
        }
    }
}

/// Packets of which `etherparse` wants more bytes: it reads ICMP and ICMPv6 in either family and insists on 8 bytes and on
/// the 20 of time stamp messages, and on the lengths of IGMP (2), which is not read here.
fn wants_more(frame: &[u8], parsed: &Parsed) -> bool {
    let payload = parsed.l3_len - u32::from(parsed.l4_offset - parsed.l3_offset);
    match parsed.protocol {
        protocol::ICMP | protocol::ICMPV6 => payload < 8 || matches!(frame[usize::from(parsed.l4_offset)], 13 | 14),
        protocol => protocol == 2,
    }
}

/// Reasons for which a frame is refused here although `etherparse` lets it in: it checks no checksums, no fragments, takes
/// UDP length 0 as "until the end", knows more tags and payloads, and has no limit of extension headers.
fn is_stricter(error: ParseError) -> bool {
    use ParseError::*;
    matches!(
        error,
        Ipv4Checksum
            | FragmentTiny
            | FragmentTooLong
            | FragmentUnaligned
            | UdpLength
            | VlanTagsTooMany
            | EthertypeUnsupported
            | Ipv6ExtensionsTooMany
            | TransportTruncated
            // A jumbogram, and a fragment within a fragment.
            | Ipv6PayloadLength
            | Ipv6Extension
            // In a first fragment: it reads no transport header there.
            | TcpHeader
    )
}

/// The short way, with a tag or none.
fn read_short(frame: &[u8], frame_len: usize) -> Option<Parsed> {
    plain::read_frame(frame, frame_len).or_else(|| plain::read_tagged_frame(frame, frame_len)).map(agreeing)
}

/// What the short way has read, where it does not contradict itself.
fn agreeing(plain: Plain) -> Parsed {
    let Plain { parsed, first, flags } = plain;
    assert_eq!(first, Ipv4Header::START | u32::from(parsed.traffic_class) << 16 | parsed.l3_len, "{parsed:?}");
    assert_eq!(flags & DONT_FRAGMENT != 0, parsed.dont_fragment, "{parsed:?}");
    parsed
}

/// What the short way reads, the long way reads alike.
fn compare_short(frame: &[u8], frame_len: usize) -> Result<(), TestCaseError> {
    if let Some(parsed) = read_short(frame, frame_len) {
        prop_assert_eq!(parse(frame, frame_len), Ok(Frame::Ip(parsed)));
        let (l3, ip) = (usize::from(parsed.l3_offset), &frame[usize::from(parsed.l3_offset)..]);
        let inner = plain::read_ip(ip, frame_len - l3).map(agreeing);
        prop_assert_eq!(inner.map(Ok), Some(parse_ip(ip, frame_len - l3)));
    }
    Ok(())
}

/// Holds both parsers' findings about one frame against each other.
fn compare(frame: &[u8]) -> Result<(), TestCaseError> {
    compare_short(frame, frame.len())?;
    let theirs = SlicedPacket::from_ethernet(frame);
    let parsed = match parse(frame, frame.len()) {
        Ok(Frame::Ip(parsed)) => parsed,
        // Whether an ARP packet is whole is seen where it is read.
        Ok(Frame::Arp) => return Ok(()),
        Err(error) => {
            let ip = matches!(&theirs, Ok(SlicedPacket { net: Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_)), .. }));
            prop_assert!(!ip || is_stricter(error), "refused for {error}: {theirs:?}");
            return Ok(());
        }
    };
    if reads_otherwise(&parsed) {
        return Ok(());
    }
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(_) if wants_more(frame, &parsed) => return Ok(()),
        Err(error) => return Err(TestCaseError::fail(format!("{parsed:?} let in, but {error}"))),
    };
    let payload = theirs.ip_payload().expect("IP, since it is here");
    let l4 = payload.payload.as_ptr() as usize - frame.as_ptr() as usize;
    prop_assert_eq!(usize::from(parsed.l3_offset), 14 + 4 * theirs.link_exts.len());
    prop_assert_eq!(usize::from(parsed.l4_offset), l4);
    prop_assert_eq!(usize::from(parsed.l3_offset) + parsed.l3_len as usize, l4 + payload.payload.len());
    prop_assert_eq!(parsed.protocol, payload.ip_number.0);
    prop_assert_eq!(parsed.is_fragment(), payload.fragmented);
    let (source, destination): (IpAddr, IpAddr) = match &theirs.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => unreachable!("it has an IP payload"),
    };
    prop_assert_eq!((parsed.source(frame), parsed.destination(frame)), (source, destination));
    let taken_over = match &theirs.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().slice()[1], ip.header().dont_fragment()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().traffic_class(), true),
        _ => unreachable!("it has an IP payload"),
    };
    prop_assert_eq!((parsed.traffic_class, parsed.dont_fragment), taken_over);
    // It reads no transport header in fragments, and not those of SCTP, DCCP and UDP-Lite.
    if !parsed.is_fragment() && !matches!(parsed.protocol, protocol::SCTP | protocol::DCCP | protocol::UDP_LITE) {
        let (ports, flags) = match &theirs.transport {
            Some(TransportSlice::Tcp(tcp)) => ((tcp.source_port(), tcp.destination_port()), tcp.slice()[13]),
            Some(TransportSlice::Udp(udp)) => ((udp.source_port(), udp.destination_port()), 0),
            _ => ((0, 0), 0),
        };
        prop_assert_eq!((parsed.src_port(), parsed.dst_port()), ports);
        prop_assert_eq!(parsed.tcp_flags, flags);
    }
    Ok(())
}

/// Makes the IPv4 header checksum right, so that what is behind that check is reached.
fn mend_checksum(frame: &mut [u8]) {
    let Ok((ethernet::IPV4, l3)) = ethernet::payload(frame) else { return };
    let len = frame.get(l3).map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    if let Some(header) = frame.get_mut(l3..l3 + len)
        && len >= 20
    {
        header[10..12].fill(0);
        let checksum = checksum::checksum(header).to_be_bytes();
        header[10..12].copy_from_slice(&checksum);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whole_packets_are_read_as_they_were_built(recipe in recipe(prop::option::of(Just((0, false))))) {
        let frame = recipe.frame();
        let Ok(Frame::Ip(parsed)) = parse(&frame, frame.len()) else {
            return Err(TestCaseError::fail(format!("{:?}", parse(&frame, frame.len()))));
        };
        prop_assert_eq!(usize::from(parsed.l3_offset), 14 + 4 * recipe.tags);
        prop_assert_eq!(parsed.family, if recipe.v6 { Family::V6 } else { Family::V4 });
        prop_assert_eq!(parsed.protocol, recipe.protocol);
        prop_assert_eq!(parsed.l3_len as usize, frame.len() - recipe.padding - usize::from(parsed.l3_offset));
        prop_assert_eq!(usize::from(parsed.l4_offset), frame.len() - recipe.padding - recipe.segment().len());
        let ports = if matches!(recipe.protocol, 6 | 17) { recipe.ports } else { (0, 0) };
        prop_assert_eq!((parsed.src_port(), parsed.dst_port()), ports);
        prop_assert_eq!(parsed.tcp_flags, if recipe.protocol == 6 { recipe.tcp_flags } else { 0 });
        prop_assert_eq!(parsed.fragment, Fragment::None);
        compare(&frame)?;
        let bare = if recipe.v6 { recipe.extensions == [false; 5] } else { recipe.options == 0 };
        if bare && recipe.fragment.is_none() && recipe.tags < 2 && matches!(recipe.protocol, 6 | 17) {
            prop_assert_eq!(read_short(&frame, frame.len()), Some(parsed), "the short way is for these");
        }
    }

    #[test]
    fn whatever_is_let_in_reads_the_same_to_both(
        recipe in recipe(prop::option::of((prop_oneof![Just(0u16), Just(1), 0..0x2000u16], any::<bool>()))),
        changes in prop::collection::vec((0..100usize, prop_oneof![any::<u8>(), 0..64u8]), 0..4),
        cut in prop::option::weighted(0.2, 0..120usize),
        mend in prop::bool::weighted(0.8),
    ) {
        let mut frame = recipe.frame();
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        if mend {
            mend_checksum(&mut frame);
        }
        compare(&frame)?;
    }

    #[test]
    fn bytes_without_any_sense_are_safe(mut frame in prop::collection::vec(any::<u8>(), 0..120), tag in 0..4usize, more in 0..99usize) {
        if let Some(ethertype) = frame.get_mut(12..14) {
            ethertype.copy_from_slice(&[[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x08, 0x06]][tag]);
        }
        mend_checksum(&mut frame);
        compare(&frame)?;
        // Bytes in further segments, and a length shorter than the head: no caller's mistake makes it read beyond.
        compare_short(&frame, frame.len() + more)?;
        compare_short(&frame, frame.len().saturating_sub(more))?;
        let _ = parse(&frame, frame.len() + more);
        let _ = parse(&frame, frame.len().saturating_sub(more));
        let _ = parse_ip(&frame, frame.len() + more);
    }
}
