//! Decisions that look random and are the same for the same seed (xorshift64), so that a run can be repeated.

#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Small seeds that follow each other must not give numbers that do, and 0 gives nothing but itself.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 up to, and without, `sides`, which is not 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }

    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.roll(among.len() as u64) as usize]
    }
}
