//! Reading a fuzzer's bytes as numbers and strings of bytes. What is missing at the end is the end, not an error.

/// The bytes not read yet.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// The next two bytes, big-endian.
    pub fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// The next `n` bytes, or as many as there are.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// The byte at `at`, 0 behind the end.
pub fn get(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The big-endian number at `at`, 0 behind the end.
pub fn get_word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([get(bytes, at), get(bytes, at + 1)])
}

/// Writes a big-endian number at `at`, as far as there is room.
pub fn put_word(bytes: &mut [u8], at: usize, word: u16) {
    for (i, byte) in word.to_be_bytes().into_iter().enumerate() {
        if let Some(place) = bytes.get_mut(at + i) {
            *place = byte;
        }
    }
}
