//! Whether an ICMP message reports an error, and about which packet (RFC 792, RFC 4443).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::parse::Family;

/// ICMP type: answer to an echo request (RFC 792).
pub const V4_ECHO_REPLY: u8 = 0;
/// ICMP type: destination unreachable; code 4 tells the path MTU (RFC 792, RFC 1191).
pub const V4_UNREACHABLE: u8 = 3;
/// ICMP type: source quench, deprecated (RFC 792, RFC 6633).
pub const V4_SOURCE_QUENCH: u8 = 4;
/// ICMP type: redirect (RFC 792).
pub const V4_REDIRECT: u8 = 5;
/// ICMP type: echo request (RFC 792).
pub const V4_ECHO_REQUEST: u8 = 8;
/// ICMP type: time exceeded (RFC 792).
pub const V4_TIME_EXCEEDED: u8 = 11;
/// ICMP type: parameter problem (RFC 792).
pub const V4_PARAMETER_PROBLEM: u8 = 12;
/// Code of [`V4_UNREACHABLE`]: fragmentation needed and DF set (RFC 792, RFC 1191 section 4).
pub const V4_FRAGMENTATION_NEEDED: u8 = 4;
/// ICMPv6 type: destination unreachable (RFC 4443 section 3.1).
pub const V6_UNREACHABLE: u8 = 1;
/// ICMPv6 type: time exceeded (RFC 4443 section 3.3).
pub const V6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6 type: redirect (RFC 4861 section 4.5); no error, and never answered with one.
pub const V6_REDIRECT: u8 = 137;
/// ICMPv6 type: packet too big, tells the path MTU (RFC 4443 section 3.2).
pub const V6_PACKET_TOO_BIG: u8 = 2;
/// ICMPv6 type: echo request (RFC 4443 section 4.1).
pub const V6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 type: answer to an echo request (RFC 4443 section 4.2).
pub const V6_ECHO_REPLY: u8 = 129;

/// How every ICMP and ICMPv6 message starts (RFC 792; RFC 4443 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcmpHeader {
    /// What the message is, "type" in the RFCs (RFC 792; RFC 4443 section 2.1).
    pub kind: u8,
    /// Which of that type (RFC 792; RFC 4443 section 2.1).
    pub code: u8,
    /// Checksum over the message; in ICMPv6 over a pseudo-header too (RFC 792; RFC 4443 section 2.3).
    pub checksum: U16,
}

impl IcmpHeader {
    /// Bytes of what all messages share.
    pub const LEN: usize = size_of::<Self>();

    /// The shortest message: RFC 792 has none under 8 bytes, RFC 4443 section 2.1 promises only the header.
    pub const fn message_len_min(family: Family) -> usize {
        match family {
            Family::V4 => 8,
            Family::V6 => Self::LEN,
        }
    }

    /// Whether the message reports an error, so that it quotes the packet that caused it and none must be sent about it
    /// (RFC 1122 section 3.2.2; RFC 4443 section 2.1).
    #[inline]
    pub fn is_error(&self, family: Family) -> bool {
        match family {
            Family::V4 => matches!(
                self.kind,
                V4_UNREACHABLE | V4_SOURCE_QUENCH | V4_REDIRECT | V4_TIME_EXCEEDED | V4_PARAMETER_PROBLEM
            ),
            Family::V6 => self.kind < 128,
        }
    }
}

/// Where in an echo the part of a recovery echo starts, behind what any ping has.
pub const RECOVERY_ECHO_OFFSET: usize = 64;
/// How that starts.
pub const RECOVERY_ECHO: [u8; 4] = *b"SLRE";

/// Whether a message is the answer to a recovery echo, by its looks; whether it may be believed is another question.
pub fn is_recovery_reply(family: Family, message: &[u8]) -> bool {
    let reply = if family == Family::V4 { V4_ECHO_REPLY } else { V6_ECHO_REPLY };
    message.first() == Some(&reply)
        && message.get(RECOVERY_ECHO_OFFSET..).is_some_and(|part| part.starts_with(&RECOVERY_ECHO))
}

/// Where the quoted packet starts in an error message (RFC 792; RFC 4443 section 3).
pub const QUOTE_OFFSET: usize = 8;

/// What an error message quotes: the start of the packet that caused it, from its IP header on.
///
/// It is cut off somewhere, so that its own length fields lie, and extensions may follow it (RFC 4884). `None` when the
/// message reports no error or is cut off before the quote.
pub fn quoted(family: Family, message: &[u8]) -> Option<&[u8]> {
    let (header, _) = IcmpHeader::ref_from_prefix(message).ok()?;
    if header.is_error(family) { message.get(QUOTE_OFFSET..) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_questions_and_answers() {
        let header = |kind| IcmpHeader { kind, code: 0, checksum: U16::ZERO };
        let errors = |family| (0..=255).filter(move |kind| header(*kind).is_error(family));
        assert!(errors(Family::V4).eq([3, 4, 5, 11, 12]));
        assert!(errors(Family::V6).eq(0..128));
    }

    #[test]
    fn only_errors_quote_a_packet() {
        let too_big = [2, 0, 0xab, 0xcd, 0, 0, 5, 0, 0x60, 1];
        assert_eq!(quoted(Family::V6, &too_big), Some(&[0x60, 1][..]));
        assert_eq!(quoted(Family::V4, &too_big), None, "type 2 is unassigned in IPv4");
        assert_eq!(quoted(Family::V6, &too_big[..8]), Some(&[][..]), "nothing quoted");
        assert_eq!(quoted(Family::V6, &too_big[..7]), None, "cut in the header");
        assert_eq!(quoted(Family::V4, &[8, 0, 0, 0, 0, 0, 0, 0, 0x45]), None, "echo request");
        assert_eq!(quoted(Family::V4, &[3, 4, 0, 0, 0, 0, 5, 0, 0x45]), Some(&[0x45][..]));
        assert_eq!(quoted(Family::V4, &[]), None);
    }
}
