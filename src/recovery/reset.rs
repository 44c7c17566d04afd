//! How a client is told that its connection is over: the segment that resets it (RFC 9293 section 3.5.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32};

use crate::packet::checksum::{pseudo_v4, pseudo_v6};
use crate::packet::ipv4::{DONT_FRAGMENT, Ipv4Header};
use crate::packet::ipv6::Ipv6Header;
use crate::packet::parse::Parsed;
use crate::packet::protocol::TCP;
use crate::packet::tcp::{ACK, FIN, RST, TcpHeader};
use crate::tunnel::template::TTL;

/// The IP packet that resets the connection of the segment that was parsed from `head`, as if its receiver had sent it.
/// `None` for what must not be answered: another reset, a later fragment, or what is cut off in its headers.
pub fn reset(head: &[u8], parsed: &Parsed) -> Option<Vec<u8>> {
    let segment = head.get(usize::from(parsed.l4_offset)..)?;
    let (header, ..) = TcpHeader::split(segment)?;
    if parsed.protocol != TCP || parsed.is_fragment() || header.flags & RST != 0 {
        return None;
    }
    // "If the incoming segment has an ACK field, the reset takes its sequence number from the ACK field of the segment";
    // else it acknowledges all of the segment.
    let headers = usize::from(parsed.l4_offset) - usize::from(parsed.l3_offset) + header.header_len();
    let data = parsed.l3_len.checked_sub(headers as u32)? + u32::from(header.flags & FIN != 0);
    let (sequence, acknowledgment, flags) = match header.flags & ACK != 0 {
        true => (header.acknowledgment, U32::ZERO, RST),
        false => (U32::ZERO, U32::new(header.sequence.get().wrapping_add(data)), RST | ACK),
    };
    let mut reset = TcpHeader {
        source_port: header.destination_port,
        destination_port: header.source_port,
        sequence,
        acknowledgment,
        data_offset: (TcpHeader::LEN as u8 / 4) << 4,
        flags,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    };
    match (parsed.destination(head), parsed.source(head)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let sum = pseudo_v4(source.octets(), destination.octets(), TCP, TcpHeader::LEN as u16);
            reset.checksum = sum.add_bytes(reset.as_bytes()).finish().into();
            Some([ipv4_header(source, destination).as_bytes(), reset.as_bytes()].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let sum = pseudo_v6(&source.octets(), &destination.octets(), TCP, TcpHeader::LEN as u32);
            reset.checksum = sum.add_bytes(reset.as_bytes()).finish().into();
            Some([ipv6_header(source, destination).as_bytes(), reset.as_bytes()].concat())
        }
        _ => None,
    }
}

fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr) -> Ipv4Header {
    let mut header = Ipv4Header {
        version_ihl: Ipv4Header::VERSION_IHL,
        dscp_ecn: 0,
        total_length: U16::new((Ipv4Header::LEN + TcpHeader::LEN) as u16),
        identification: U16::ZERO,
        flags_fragment: U16::new(DONT_FRAGMENT),
        ttl: TTL,
        protocol: TCP,
        checksum: U16::ZERO,
        source: source.octets(),
        destination: destination.octets(),
    };
    header.fill_checksum();
    header
}

fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr) -> Ipv6Header {
    Ipv6Header {
        version_class_flow: U32::new(6 << 28),
        payload_length: U16::new(TcpHeader::LEN as u16),
        next_header: TCP,
        hop_limit: TTL,
        source: source.octets(),
        destination: destination.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse::parse_ip;
    use crate::packet::tcp::{PSH, SYN};

    /// A segment from port 4711 to port 80 with these flags and `data` bytes behind its header.
    fn segment(flags: u8, data: usize) -> Vec<u8> {
        let mut ip = ipv4_header(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(192, 0, 2, 80));
        ip.total_length = U16::new((40 + data) as u16);
        ip.fill_checksum();
        let tcp = TcpHeader {
            source_port: U16::new(4711),
            destination_port: U16::new(80),
            sequence: U32::new(1000),
            acknowledgment: U32::new(77),
            data_offset: 5 << 4,
            flags,
            window: U16::new(100),
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        };
        [ip.as_bytes(), tcp.as_bytes(), &vec![0; data]].concat()
    }

    #[test]
    fn a_reset_fits_into_the_connection_that_it_ends() {
        for (flags, data, sequence, acknowledgment, answered) in [
            (ACK, 0, 77, 0, RST),
            (ACK | PSH, 500, 77, 0, RST),
            (ACK | FIN, 0, 77, 0, RST),
            (0, 10, 0, 1010, RST | ACK),
            (FIN, 10, 0, 1011, RST | ACK),
        ] {
            let packet = segment(flags, data);
            let parsed = parse_ip(&packet, packet.len()).expect("a packet");
            let packet = reset(&packet, &parsed).expect("a reset");
            let parsed = parse_ip(&packet, packet.len()).expect("a packet");
            assert_eq!((parsed.source(&packet), parsed.src_port()), ("192.0.2.80".parse().unwrap(), 80));
            assert_eq!((parsed.destination(&packet), parsed.dst_port()), ("10.0.0.2".parse().unwrap(), 4711));
            let (header, ..) = TcpHeader::split(&packet[20..]).expect("a segment");
            assert_eq!((header.sequence.get(), header.acknowledgment.get()), (sequence, acknowledgment), "{flags:#x}");
            assert_eq!(header.flags, answered);
            let sum = pseudo_v4([192, 0, 2, 80], [10, 0, 0, 2], TCP, 20).add_bytes(&packet[20..]);
            assert_eq!(sum.fold(), 0xffff, "the checksum");
        }
    }

    #[test]
    fn a_reset_is_not_answered_with_another() {
        for flags in [RST, RST | ACK, RST | SYN] {
            let packet = segment(flags, 0);
            let parsed = parse_ip(&packet, packet.len()).expect("a packet");
            assert_eq!(reset(&packet, &parsed), None, "{flags:#x}");
        }
        let whole = segment(ACK, 0);
        let parsed = parse_ip(&whole, whole.len()).expect("a packet");
        assert_eq!(reset(&whole[..30], &parsed), None, "cut off");
    }
}
