//! The bytes of an input as decisions, and inputs made by chance.

/// Decisions, one byte each. When they are used up every decision is the first one.
pub struct Choices<'a> {
    left: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// One of `among` (at least 1, and of more than 256 the first 256), by its number.
    pub fn pick(&mut self, among: usize) -> usize {
        let Some((byte, rest)) = self.left.split_first().filter(|_| among > 1) else { return 0 };
        self.left = rest;
        usize::from(*byte) % among
    }

    pub fn one<'b, T: ?Sized>(&mut self, of: &[&'b T]) -> &'b T {
        of[self.pick(of.len())]
    }
}

/// Inputs by chance (xorshift), for a number the same ones in every run.
pub struct Chance(u64);

/// Decisions of one.
const MOST: u64 = 600;

impl Chance {
    pub fn new(number: u64) -> Self {
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// See [`super::Prepared::document`].
    pub fn input(&mut self) -> Vec<u8> {
        let length = self.next() % MOST;
        std::iter::once(0).chain((0..length).map(|_| self.next() as u8)).collect()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
