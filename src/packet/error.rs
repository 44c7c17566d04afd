//! Why a frame is not forwarded: one name for each way in which bytes fail to be a packet.

use crate::units::labelled;

labelled! {
    /// What is wrong with a frame: the reason under which its drop is counted.
    ParseError {
        /// The frame ends inside its Ethernet header or VLAN tags.
        EthernetTruncated => "ethernet_truncated",
        /// More than two VLAN tags.
        VlanTagsTooMany => "vlan_tags_too_many",
        /// Neither IPv4, IPv6 nor ARP.
        EthertypeUnsupported => "ethertype_unsupported",
        /// The version field is not the one that the EtherType promises, or neither 4 nor 6.
        IpVersion => "ip_version",
        /// The frame ends inside the IPv4 header.
        Ipv4Truncated => "ipv4_truncated",
        /// The IPv4 header claims fewer than 20 bytes.
        Ipv4HeaderLength => "ipv4_header_length",
        /// The IPv4 header checksum is wrong.
        Ipv4Checksum => "ipv4_checksum",
        /// The IPv4 total length is shorter than the header or longer than the frame.
        Ipv4TotalLength => "ipv4_total_length",
        /// The frame ends inside the IPv6 header.
        Ipv6Truncated => "ipv6_truncated",
        /// The IPv6 payload length is longer than the frame, or zero before hop-by-hop options (a jumbogram).
        Ipv6PayloadLength => "ipv6_payload_length",
        /// An IPv6 extension header is cut off, misplaced or repeated where it must not be.
        Ipv6Extension => "ipv6_extension",
        /// More IPv6 extension headers than are walked.
        Ipv6ExtensionsTooMany => "ipv6_extensions_too_many",
        /// A first fragment without its whole transport header, or a later one that would overwrite it (RFC 1858).
        FragmentTiny => "fragment_tiny",
        /// A fragment that ends beyond the longest possible packet.
        FragmentTooLong => "fragment_too_long",
        /// A fragment with more to come whose payload is not a multiple of 8 bytes.
        FragmentUnaligned => "fragment_unaligned",
        /// The TCP header is cut off, or its data offset is below 5 or beyond the packet.
        TcpHeader => "tcp_header",
        /// The UDP header is cut off, or its length is below 8 or beyond the packet.
        UdpLength => "udp_length",
        /// The ICMP or ICMPv6 header is cut off.
        IcmpTruncated => "icmp_truncated",
        /// The header of SCTP, DCCP or UDP-Lite is cut off.
        TransportTruncated => "transport_truncated",
        /// The headers go on beyond the first segment of the frame.
        HeadersSegmented => "headers_segmented",
    }
}

#[cfg(test)]
mod tests {
    use super::ParseError;

    #[test]
    fn labels_are_distinct_snake_case_and_the_table_is_indexed_by_discriminant() {
        for (index, error) in ParseError::ALL.iter().enumerate() {
            assert_eq!(*error as usize, index);
            let name = error.label();
            assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{name}");
            assert_eq!(ParseError::ALL.iter().filter(|other| other.label() == name).count(), 1, "{name}");
            assert_eq!(error.to_string(), name);
        }
    }
}
