//! What becomes of congestion marks at a tunnel's two ends (RFC 6040).

/// An ECN field: the low two bits of IPv4 TOS and IPv6 traffic class (RFC 3168 section 5).
pub const MASK: u8 = 0b11;

/// Not ECN-capable.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, codepoint 1.
pub const ECT_1: u8 = 0b01;
/// ECN-capable, codepoint 0.
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The inner field after decapsulation, or `None` where the packet must be dropped (RFC 6040 section 4.2, figure 4).
///
/// Encapsulation needs no function: in normal mode the outer field is a copy of the inner one (section 4.1).
#[inline]
pub fn on_decapsulation(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_rfc_6040() {
        let row = |inner| [NOT_ECT, ECT_0, ECT_1, CE].map(|outer| on_decapsulation(inner, outer));
        //                          Not-ECT        ECT(0)         ECT(1)         CE     (outer)
        assert_eq!(row(NOT_ECT), [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]);
        assert_eq!(row(ECT_0), [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]);
        assert_eq!(row(ECT_1), [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]);
        assert_eq!(row(CE), [Some(CE); 4]);
    }
}
