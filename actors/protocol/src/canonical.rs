//! The byte-by-byte specified encoding that ids and signatures cover.
//!
//! It is not the wire codec: a change of serialiser must not change a hash. The rules:
//!
//! - integers are big-endian and of fixed width;
//! - texts and byte strings are their length as a `u32`, then their bytes;
//! - maps and sets are their length as a `u32`, then their items in ascending order of key;
//! - an option is `0`, or `1` and the value;
//! - every hashed or signed object begins with a *context*, a text of its own, so that bytes
//!   signed as one kind of object never pass for another.
//!
//! Every field's extent follows from the bytes before it, hence the encoding is injective.

/// Collects canonical bytes.
#[derive(Debug, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts an object of the kind that `context` names.
    pub fn new(context: &str) -> Self {
        let mut writer = Self { bytes: Vec::with_capacity(256) };
        writer.text(context);
        writer
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// The length of what follows.
    ///
    /// # Panics
    /// If `len` is over `u32::MAX`; every collection here is bounded far below.
    pub fn len(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("collections are bounded below 4 GiB"))
    }

    /// A byte string with its length.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.len(value.len()).raw(value)
    }

    /// A text with its length.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Bytes of a fixed width, without a length.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// The bytes written so far.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The BLAKE3 hash of the bytes written so far.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.bytes).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_texts_cannot_trade_letters() {
        let pair = |a: &str, b: &str| {
            let mut writer = Writer::new("test");
            writer.text(a).text(b);
            writer.finish()
        };
        assert_ne!(pair("ab", "c"), pair("a", "bc"));
    }

    #[test]
    fn the_context_separates_kinds() {
        assert_ne!(Writer::new("fleet-head-v1").hash(), Writer::new("fleet-cut-v1").hash());
    }
}
