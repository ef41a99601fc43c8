//! Whole frames out of bytes in whatever pieces they arrive.

use super::MAX_FRAME;

/// Takes bytes in whatever pieces they arrive and gives whole frames out.
///
/// Holds at most [`MAX_FRAME`] + 1 bytes: the reader asks [`room`](Self::room) how much it may read.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    pub(super) bytes: Vec<u8>,
    /// Bytes before this one have been given out.
    start: usize,
    /// Bytes before this one hold no NUL that was not given out.
    searched: usize,
}

/// The frame under way is longer than [`MAX_FRAME`]: the stream cannot be made sense of from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl FrameBuffer {
    /// How many bytes [`push`](Self::push) takes now; never 0 after [`next_frame`](Self::next_frame) gave `Ok(None)`.
    pub fn room(&self) -> usize {
        (MAX_FRAME + 1).saturating_sub(self.bytes.len() - self.start)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    /// What has come and was not given out.
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Takes the beginning of `bytes`, as much as there is room for, and says how much that was.
    #[must_use = "what was not taken has to be pushed again"]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        // Only here, and not for each frame given out: many small frames in one piece must not cost a copy each.
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let taken = bytes.len().min(self.room());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The next whole frame, without its NUL. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// [`TooLarge`], from then on at each call.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, TooLarge> {
        match self.bytes[self.searched..].iter().position(|byte| *byte == 0) {
            Some(found) => {
                let frame = self.start..self.searched + found;
                self.start = frame.end + 1;
                self.searched = self.start;
                Ok(Some(&self.bytes[frame]))
            }
            None if self.bytes.len() - self.start > MAX_FRAME => Err(TooLarge),
            None => {
                self.searched = self.bytes.len();
                Ok(None)
            }
        }
    }

    /// Gives the memory back while nothing is buffered: an idle connection costs none.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
