//! Memory for rows, used again.
//!
//! Why: a row of a photograph is some 600 KB; fresh memory of that size costs page faults or zeroing on every request.

use parking_lot::Mutex;

/// Buffers that are not in use, of one model.
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<f32>>>,
    keep: usize,
}

impl Buffers {
    /// Keeps at most `keep` buffers that nobody uses.
    pub(crate) fn new(keep: usize) -> Self {
        Self { free: Mutex::new(Vec::with_capacity(keep)), keep }
    }

    /// A buffer of `length` numbers, whatever they are.
    pub(crate) fn take(&self, length: usize) -> Vec<f32> {
        let mut buffer = self.free.lock().pop().unwrap_or_default();
        buffer.resize(length, 0.0);
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, buffer: Vec<f32>) {
        let mut free = self.free.lock();
        if free.len() < self.keep {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_in_the_length_that_is_asked_for() {
        let buffers = Buffers::new(1);
        let first = buffers.take(8);
        let place = first.as_ptr();
        buffers.give(first);
        let again = buffers.take(4);
        assert_eq!((again.as_ptr(), again.len()), (place, 4));
        buffers.give(again);
        assert_eq!(buffers.take(100).len(), 100);
    }

    #[test]
    fn no_more_are_kept_than_said() {
        let buffers = Buffers::new(2);
        (0..5).for_each(|_| buffers.give(vec![0.0; 4]));
        assert_eq!(buffers.free.lock().len(), 2);
    }
}
