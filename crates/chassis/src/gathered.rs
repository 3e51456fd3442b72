//! Log lines that are written together.
//!
//! Why: the writer's thread is woken when a line comes while it waits, and each write is a system call. At tens of thousands of
//! lines a second both together cost as much as making the line. After a write it therefore pauses: what comes meanwhile waits in
//! its queue, where it wakes nobody, and leaves in one write.

use std::io::{self, Write};
use std::time::Duration;

/// The pause: at most so late is a line.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// So many bytes leave at once even while more is at hand: what a pipe takes in Linux.
const FULL: usize = 64 << 10;

/// Gathers what is written until it is flushed, then pauses. For a thread of its own.
pub(crate) struct Gathered<W> {
    to: W,
    lines: Vec<u8>,
}

impl<W: Write> Gathered<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, lines: Vec::new() }
    }

    fn write_out(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.lines);
        // What could not be written is gone, as a line would be that was written by itself.
        self.lines.clear();
        written
    }
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lines.len() + bytes.len() > FULL {
            self.write_out()?;
        }
        self.lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.write_out()?;
        self.to.flush()?;
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers each write; fails those that it is told to.
    #[derive(Default)]
    struct Writes {
        done: Vec<Vec<u8>>,
        fail: bool,
    }

    impl Write for &mut Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.fail {
                return Err(io::Error::other("no reader"));
            }
            self.done.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_leave_together_and_in_order() {
        let mut writes = Writes::default();
        let mut gathered = Gathered::new(&mut writes);
        gathered.write_all(b"one\n").expect("is kept");
        gathered.write_all(b"two\n").expect("is kept");
        gathered.flush().expect("is written");
        gathered.flush().expect("nothing to do");
        gathered.write_all(b"three\n").expect("is kept");
        gathered.flush().expect("is written");
        assert_eq!(writes.done, [b"one\ntwo\n".to_vec(), b"three\n".to_vec()]);
    }

    #[test]
    fn it_never_holds_more_than_a_full_write_or_one_line() {
        let mut writes = Writes::default();
        let mut gathered = Gathered::new(&mut writes);
        let line = vec![b'x'; FULL / 2 + 1];
        gathered.write_all(&line).expect("is kept");
        gathered.write_all(&line).expect("sends the first away");
        gathered.write_all(&vec![b'y'; 2 * FULL]).expect("sends the second away");
        assert_eq!(gathered.lines.len(), 2 * FULL);
        gathered.flush().expect("is written");
        let lengths: Vec<usize> = writes.done.iter().map(Vec::len).collect();
        assert_eq!(lengths, [FULL / 2 + 1, FULL / 2 + 1, 2 * FULL]);
    }

    #[test]
    fn what_cannot_be_written_is_not_kept() {
        let mut writes = Writes { fail: true, ..Writes::default() };
        let mut gathered = Gathered::new(&mut writes);
        gathered.write_all(b"lost\n").expect("is kept");
        gathered.flush().expect_err("nobody reads");
        assert!(gathered.lines.is_empty());
    }
}
