//! Captures, read and written by an independent library, and flows as `etherparse` sees them.

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

/// The folder of real captures, where there is one.
pub fn real_capture(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    let file = std::env::var_os("SLR_CAPTURES").map_or_else(beside, PathBuf::from).join(name);
    if !file.exists() {
        eprintln!("skipped: no captures");
        return None;
    }
    Some(file)
}

/// The frames of a real capture, where there is one.
pub fn real_frames(name: &str) -> Option<Vec<Vec<u8>>> {
    real_capture(name).map(|path| frames(&path))
}

/// Frames of a classic pcap file.
pub fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).expect("a file")).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("a record").data.into_owned());
    }
    frames
}

/// Writes a classic pcap file; each frame with its time.
pub fn write(path: &Path, frames: &[(Duration, Vec<u8>)]) {
    let mut writer = PcapWriter::new(File::create(path).expect("a file")).expect("a header");
    for (time, frame) in frames {
        writer.write_packet(&PcapPacket::new(*time, frame.len() as u32, frame)).expect("a record");
    }
}

/// A flow: addresses, protocol, ports (none for fragments).
pub type Flow = (IpAddr, IpAddr, u8, Option<(u16, u16)>);

/// The IP packet in a frame, without what is around it, and its flow; `None` where a router must not forward it.
pub fn ip_packet(frame: &[u8]) -> Option<(Flow, Vec<u8>)> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (addresses, start, len, fragmented, protocol) = match sliced.net? {
        NetSlice::Ipv4(slice) => {
            let header = slice.header();
            let addresses = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
            let start = header.slice().as_ptr() as usize - frame.as_ptr() as usize;
            if header.to_header().calc_header_checksum() != header.header_checksum() {
                return None;
            }
            (addresses, start, usize::from(header.total_len()), header.is_fragmenting_payload(), header.protocol().0)
        }
        NetSlice::Ipv6(slice) => {
            let header = slice.header();
            let addresses = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
            let start = header.slice().as_ptr() as usize - frame.as_ptr() as usize;
            let protocol = slice.payload().ip_number.0;
            (addresses, start, 40 + usize::from(header.payload_length()), slice.is_payload_fragmented(), protocol)
        }
        NetSlice::Arp(_) => return None,
    };
    let ports = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) if !fragmented => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) if !fragmented => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    Some(((addresses.0, addresses.1, protocol, ports), frame.get(start..start + len)?.to_vec()))
}

/// The flow that a packet belongs to: of an ICMP error that of the packet which it quotes, as its sender's peer sends it.
pub fn owner(packet: &[u8]) -> Option<Flow> {
    let header = if packet[0] >> 4 == 4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let is_error = match &sliced.transport {
        Some(TransportSlice::Icmpv4(icmp)) => matches!(icmp.type_u8(), 3 | 4 | 5 | 11 | 12),
        Some(TransportSlice::Icmpv6(icmp)) => icmp.type_u8() < 128,
        _ => false,
    };
    if !is_error {
        let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        return ip_packet(&[&[0; 12][..], &ethertype, packet].concat()).map(|(flow, _)| flow);
    }
    // What is quoted is cut, so that only its bytes are sure.
    let quoted = packet.get(header + 8..)?;
    let address = |at: usize, len: usize| -> Option<IpAddr> {
        let bytes = quoted.get(at..at + len)?;
        match len {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let port = |at: usize| Some(u16::from_be_bytes(quoted.get(at..at + 2)?.try_into().ok()?));
    let (source, destination, protocol, transport) = match quoted.first()? >> 4 {
        4 => (address(12, 4)?, address(16, 4)?, quoted[9], usize::from(quoted[0] & 15) * 4),
        _ => (address(8, 16)?, address(24, 16)?, quoted[6], 40),
    };
    let ports = if matches!(protocol, 6 | 17) { Some((port(transport + 2)?, port(transport)?)) } else { None };
    Some((destination, source, protocol, ports))
}

/// A tunnelled frame's child, and the IP packet in it with its flow.
pub fn decapsulate(frame: &[u8]) -> (IpAddr, Flow, Vec<u8>) {
    let ((_, child, protocol, _), outer) = ip_packet(frame).expect("an outer IP packet");
    let header = if outer[0] >> 4 == 4 { 20 } else { 40 };
    let ethertype: [u8; 2] = match protocol {
        4 => [0x08, 0x00],
        41 => [0x86, 0xdd],
        other => panic!("outer protocol {other}"),
    };
    let inner = [&[0; 12][..], &ethertype, &outer[header..]].concat();
    let (flow, packet) = ip_packet(&inner).expect("an inner IP packet");
    assert_eq!(packet.len(), outer.len() - header, "nothing behind the inner packet");
    (child, flow, packet)
}

/// The IP packets of each flow, in order.
pub fn by_flow(frames: &[Vec<u8>]) -> HashMap<Flow, Vec<Vec<u8>>> {
    let mut flows: HashMap<Flow, Vec<Vec<u8>>> = HashMap::new();
    for (flow, packet) in frames.iter().filter_map(|frame| ip_packet(frame)) {
        flows.entry(flow).or_default().push(packet);
    }
    flows
}
