//! Whether bytes come from one who has the key: the first half of an HMAC-SHA256 (RFC 2104, RFC 6234) behind them.

use ring::hmac;

/// Bytes of a seal.
pub const LEN: usize = 16;

/// A key, for bytes of one purpose.
#[derive(Clone, Debug)]
pub struct Seal {
    key: hmac::Key,
    purpose: &'static [u8],
}

impl Seal {
    /// Seals for `purpose` by `key`: what is sealed for one purpose is good for no other.
    pub fn new(key: &[u8; 16], purpose: &'static [u8]) -> Seal {
        Seal { key: hmac::Key::new(hmac::HMAC_SHA256, key), purpose }
    }

    /// The seal of `bytes`.
    pub fn of(&self, bytes: &[u8]) -> [u8; LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(self.purpose);
        context.update(bytes);
        let tag = context.sign();
        let mut seal = [0; LEN];
        seal.copy_from_slice(&tag.as_ref()[..LEN]);
        seal
    }

    /// What is sealed, where the seal behind it is right.
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (sealed, seal) = bytes.split_at_checked(bytes.len().checked_sub(LEN)?)?;
        // Compared in a time that says nothing about where they differ.
        let differs = self.of(sealed).iter().zip(seal).fold(0, |differs, (a, b)| differs | (a ^ b));
        (std::hint::black_box(differs) == 0).then_some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_or_sealed_otherwise_does_not_open() {
        let seal = Seal::new(&[7; 16], b"test");
        let sealed = [&b"hello"[..], &seal.of(b"hello")].concat();
        assert_eq!(seal.open(&sealed), Some(&b"hello"[..]));
        for byte in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[byte] ^= 1;
            assert_eq!(seal.open(&changed), None, "byte {byte}");
        }
        assert_eq!(Seal::new(&[8; 16], b"test").open(&sealed), None);
        assert_eq!(Seal::new(&[7; 16], b"other").open(&sealed), None);
        assert_eq!(seal.open(&sealed[..15]), None);
    }
}
