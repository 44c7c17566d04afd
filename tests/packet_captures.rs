//! Real traffic through the parser: every frame is let in, or refused for a reason that is known and counted.

use crate::common::capture;
use slr::packet::parse::{Family, Fragment, Frame, ParseError, parse};

/// What became of the frames of one capture.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    v4: usize,
    v6: usize,
    arp: usize,
    fragments: usize,
    refused: Vec<(&'static str, usize)>,
}

fn outcome(frames: &[Vec<u8>]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut refused = [0; ParseError::ALL.len()];
    for frame in frames {
        match parse(frame, frame.len()) {
            Ok(Frame::Ip(parsed)) => {
                match parsed.family {
                    Family::V4 => outcome.v4 += 1,
                    Family::V6 => outcome.v6 += 1,
                }
                outcome.fragments += usize::from(parsed.fragment != Fragment::None);
            }
            Ok(Frame::Arp) => outcome.arp += 1,
            Err(error) => refused[error as usize] += 1,
        }
    }
    let named = ParseError::ALL.iter().map(|error| (error.label(), refused[*error as usize]));
    outcome.refused = named.filter(|(_, count)| *count > 0).collect();
    outcome
}

// The counts of wrong checksums, of fragments and of frames are what tshark and the naive checksum say too. The five total
// lengths of realmix reach beyond their frames of 66 bytes.
#[test]
fn every_frame_of_the_captures_is_let_in_or_refused_for_its_own_reason() {
    let refused = vec![("ipv4_checksum", 2570), ("ipv4_total_length", 5)];
    let table = [
        ("realmix.pcap", Outcome { v4: 39465, v6: 4911, arp: 336, fragments: 14, refused }),
        ("isp_mix_4096_vlan.pcap", Outcome { v4: 3936, v6: 160, arp: 0, fragments: 1, refused: vec![] }),
        ("ipv6_tls.pcap", Outcome { v4: 1541, v6: 4440, arp: 0, fragments: 0, refused: vec![("ipv4_checksum", 1470)] }),
        ("frag_v4.pcap", Outcome { v4: 2996, v6: 0, arp: 4, fragments: 1859, refused: vec![] }),
        ("icmp_errors.pcap", Outcome { v4: 425, v6: 128, arp: 0, fragments: 0, refused: vec![("ipv4_checksum", 10)] }),
    ];
    for (capture, expected) in table {
        let Some(frames) = capture::real_frames(capture) else { return };
        assert_eq!(outcome(&frames), expected, "{capture}");
    }
}
