//! How large the segments are that a virtual host's clients ask its servers for.
//!
//! The MSS option of a client's SYN limits what the server sends, and nothing else (RFC 9293 section 3.7.1): clamping it
//! protects the way of the answers, which the router does not see, where messages about its MTU get lost. What the client
//! sends is limited by the server's option, which does not pass here, and by the ICMP messages about the tunnel's MTU.
//! Where it is configured, it is the one thing in which a packet reaches its child changed.

use crate::packet::checksum::update_u16;
use crate::packet::parse::{Family, Parsed};
use crate::packet::tcp::TcpHeader;

/// Option kinds of TCP (RFC 9293 section 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// The largest MSS that a SYN may still have when it leaves here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// Any.
    #[default]
    Off,
    /// What fits into the longest packet that is carried whole to the child.
    Auto,
    /// This, over IPv4 and IPv6, in bytes.
    To(u16),
}

impl MssClamp {
    /// The limit in bytes where the longest packet has `packet_max`: less 40 over IPv4 and 60 over IPv6 for headers
    /// without options (RFC 9293 section 3.7.1).
    pub fn limit(self, family: Family, packet_max: u16) -> Option<u16> {
        let headers = match family {
            Family::V4 => 40,
            Family::V6 => 60,
        };
        match self {
            MssClamp::Off => None,
            MssClamp::Auto => Some(packet_max.saturating_sub(headers)),
            MssClamp::To(limit) => Some(limit),
        }
    }
}

/// Lowers the MSS option of a SYN that begins `head` to `limit`, and the TCP checksum with it (RFC 1624). False where there
/// is nothing to lower. The option is never added and never raised.
pub fn clamp(head: &mut [u8], parsed: &Parsed, limit: u16) -> bool {
    let Some(segment) = head.get_mut(usize::from(parsed.l4_offset)..) else { return false };
    let Some(options) = TcpHeader::split(segment).map(|(_, options, _)| options) else { return false };
    let Some(at) = find(options) else { return false };
    let at = TcpHeader::LEN + at;
    let Some(field) = segment.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) else { return false };
    let old = u16::from_be_bytes(*field);
    if old <= limit {
        return false;
    }
    *field = limit.to_be_bytes();
    // Behind an odd number of bytes the field lies across two words of the sum, its bytes the other way round.
    let word = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
    if let Some(sum) = segment.get_mut(16..).and_then(|bytes| bytes.first_chunk_mut()) {
        *sum = update_u16(u16::from_be_bytes(*sum), word(old), word(limit)).to_be_bytes();
    }
    true
}

/// Where the value of the MSS option starts.
fn find(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match options.get(at..)? {
            [END, ..] | [] => return None,
            [NO_OPERATION, ..] => at += 1,
            [MSS, 4, _, _, ..] => return Some(at + 2),
            [_, len @ 2..=u8::MAX, ..] => at += usize::from(*len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::{pseudo_v4, pseudo_v6};
    use crate::packet::parse::parse_ip;

    /// A SYN with these options and a right checksum.
    fn syn(family: Family, options: &[u8]) -> Vec<u8> {
        let data_offset = (5 + options.len() / 4) as u8;
        let tcp = [&[0xc0, 1, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, data_offset << 4, 2, 0xff, 0xff, 0, 0, 0, 0][..], options]
            .concat();
        let length = tcp.len() as u16;
        let mut ip = match family {
            Family::V4 => {
                let [high, low] = (20 + length).to_be_bytes();
                let mut ip = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 9, 192, 0, 2, 4];
                let sum = crate::packet::checksum::checksum(&ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                ip
            }
            Family::V6 => [&[0x60, 0, 0, 0, 0, length as u8, 6, 64][..], &[0x20; 32]].concat(),
        };
        let at = ip.len();
        ip.extend(tcp);
        let sum = !sum(&ip, at);
        ip[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        ip
    }

    /// The sum over segment and pseudo-header.
    fn sum(ip: &[u8], at: usize) -> u16 {
        let tcp = &ip[at..];
        let pseudo = match at {
            20 => pseudo_v4([10, 0, 0, 9], [192, 0, 2, 4], 6, tcp.len() as u16),
            _ => pseudo_v6(&[0x20; 16], &[0x20; 16], 6, tcp.len() as u32),
        };
        pseudo.add_bytes(tcp).fold()
    }

    #[test]
    fn an_mss_above_the_limit_is_lowered_and_nothing_else_is_touched() {
        let table: &[(&str, &[u8], Option<usize>)] = &[
            ("alone", &[2, 4, 0x05, 0xb4], Some(2)),
            ("behind others", &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 4, 2, 2, 4, 0x23, 0x00], Some(14)),
            ("at an odd place", &[1, 2, 4, 0x05, 0xb4, 0, 0, 0], Some(3)),
            ("one above", &[2, 4, 0x05, 0x79], Some(2)),
            ("the limit", &[2, 4, 0x05, 0x78], None),
            ("below", &[2, 4, 0x02, 0x18], None),
            ("no options", &[], None),
            ("no MSS", &[1, 1, 4, 2], None),
            ("behind the end", &[0, 0, 0, 0, 2, 4, 0x05, 0xb4], None),
            ("of another length", &[2, 3, 0x05, 1], None),
            ("cut", &[1, 1, 1, 2], None),
            ("an option of no length", &[3, 0, 2, 4, 0x05, 0xb4, 0, 0], None),
            ("an option beyond the header", &[3, 9, 2, 4], None),
        ];
        for (name, options, lowered) in table {
            for (family, l4) in [(Family::V4, 20), (Family::V6, 40)] {
                let before = syn(family, options);
                let mut after = before.clone();
                let parsed = parse_ip(&before, before.len()).expect("a packet");
                assert_eq!(clamp(&mut after, &parsed, 1400), lowered.is_some(), "{name}");
                assert_eq!(sum(&after, l4), 0xffff, "{name}: checksum");
                let mut expected = before.clone();
                if let Some(at) = lowered {
                    expected[l4 + 20 + at..][..2].copy_from_slice(&1400_u16.to_be_bytes());
                    expected[l4 + 16..][..2].copy_from_slice(&after[l4 + 16..][..2]);
                }
                assert_eq!(after, expected, "{name}, {family:?}");
            }
        }
    }

    #[test]
    fn the_limit_is_what_fits_or_what_is_configured() {
        for (clamp, v4, v6) in [
            (MssClamp::Off, None, None),
            (MssClamp::Auto, Some(1440), Some(1420)),
            (MssClamp::To(1300), Some(1300), Some(1300)),
        ] {
            assert_eq!([Family::V4, Family::V6].map(|family| clamp.limit(family, 1480)), [v4, v6], "{clamp:?}");
        }
        assert_eq!(MssClamp::Auto.limit(Family::V6, 20), Some(0));
    }
}
