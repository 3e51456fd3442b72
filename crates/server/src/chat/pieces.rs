//! The pieces of a stream that its reader has not acknowledged.
//!
//! Promises: numbers run from 0 without gaps; asking again gives the same pieces until they are acknowledged; nothing comes after
//! the end, and there is exactly one.

use std::collections::VecDeque;

use fault::Fault;
use idl::chat::{AlternativeToken, Piece, TokenLogprob};
use idl::fault::FaultCode;

/// What a piece costs in memory besides its text, and a log-probability besides its bytes: the structs, and what the allocator
/// rounds up to. The texts of most tokens are a few bytes, so these are nearly all of it.
const PIECE: usize = size_of::<(Piece, usize)>() + 16;
const LOGPROB: usize = size_of::<TokenLogprob>() + 64;
const ALTERNATIVE: usize = size_of::<AlternativeToken>() + 64;

pub(super) struct Pieces {
    /// Number of the first one kept.
    first: i64,
    kept: VecDeque<(Piece, usize)>,
    bytes: usize,
    limit: usize,
    ended: bool,
}

/// The reader is too far behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) limit: usize,
}

impl Pieces {
    pub(super) fn new(limit: usize) -> Self {
        Self { first: 0, kept: VecDeque::new(), bytes: 0, limit, ended: false }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The number of the next piece.
    fn next(&self) -> i64 {
        self.first + self.kept.len() as i64
    }

    /// Adds a piece, which gets its number here. After the end nothing is added.
    ///
    /// # Errors
    /// [`Behind`] when the reader has left too much behind; it is not added then.
    pub(super) fn push(&mut self, piece: Piece) -> Result<(), Behind> {
        let bytes = size(&piece);
        // What is alone is always kept: a reader that takes piece by piece gets all of them.
        if !self.ended && !self.kept.is_empty() && self.bytes + bytes > self.limit {
            return Err(Behind { limit: self.limit });
        }
        self.add(piece, bytes);
        Ok(())
    }

    /// Adds the last piece, for which there is always room.
    pub(super) fn end(&mut self, piece: Piece) {
        let bytes = size(&piece);
        self.add(piece, bytes);
        self.ended = true;
    }

    fn add(&mut self, piece: Piece, bytes: usize) {
        if self.ended {
            return;
        }
        let number = Some(self.next());
        self.bytes += bytes;
        self.kept.push_back((Piece { number, ..piece }, bytes));
    }

    /// Forgets what is before `from`, and gives the rest.
    ///
    /// # Errors
    /// InvalidInput when `from` was forgotten, or is beyond what there is.
    pub(super) fn since(&mut self, from: i64) -> Result<Vec<Piece>, Fault> {
        let (first, next) = (self.first, self.next());
        if !(first..=next).contains(&from) {
            let message = if (0..first).contains(&from) {
                format!("from_piece is {from}, pieces before {first} were acknowledged and are forgotten")
            } else {
                format!(
                    "from_piece is {from}, the stream has pieces up to {}, so allowed is {first} to {next}",
                    next - 1
                )
            };
            return Err(Fault::invalid_input(message).with_param("from_piece"));
        }
        while self.first < from
            && let Some((_, bytes)) = self.kept.pop_front()
        {
            self.first += 1;
            self.bytes -= bytes;
        }
        Ok(self.kept.iter().map(|(piece, _)| piece.clone()).collect())
    }
}

/// What breaks a stream.
pub(super) fn broken(fault: &Fault) -> Piece {
    Piece {
        index: Some(0),
        text: Some(String::new()),
        error: Some(FaultCode(fault.kind.row().thrift)),
        error_message: Some(fault.message.as_ref().to_owned()),
        ..Piece::default()
    }
}

/// What a piece costs in memory.
fn size(piece: &Piece) -> usize {
    let bytes = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let other = |other: &AlternativeToken| ALTERNATIVE + bytes(&other.bytes) + text(&other.text);
    let one = |token: &TokenLogprob| {
        let others = token.top.iter().flatten();
        LOGPROB + bytes(&token.bytes) + text(&token.text) + others.map(|it| other(it)).sum::<usize>()
    };
    PIECE + text(&piece.text) + text(&piece.error_message) + piece.logprobs.iter().flatten().map(one).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece { text: Some(text.to_owned()), ..Piece::default() }
    }

    fn numbers(pieces: &[Piece]) -> Vec<i64> {
        pieces.iter().filter_map(|piece| piece.number).collect()
    }

    #[test]
    fn asking_again_gives_the_same_and_asking_further_forgets() {
        let mut pieces = Pieces::new(4 * PIECE);
        for word in ["a", "b", "c"] {
            pieces.push(text(word)).expect("there is room");
        }
        let first = pieces.since(0).expect("in range");
        assert_eq!((numbers(&first), pieces.since(0)), (vec![0, 1, 2], Ok(first)));
        assert_eq!(numbers(&pieces.since(2).expect("in range")), [2]);
        let fault = pieces.since(1).expect_err("forgotten");
        assert_eq!(fault.message, "from_piece is 1, pieces before 2 were acknowledged and are forgotten");
        assert!(pieces.since(3).expect("all is acknowledged").is_empty());
        for beyond in [4, -1, i64::MAX, i64::MIN] {
            let fault = pieces.since(beyond).expect_err("there is no such piece");
            assert_eq!(fault.param.as_deref(), Some("from_piece"), "{fault}");
        }
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_told_and_one_that_reads_is_not() {
        let limit = 2 * PIECE + 10;
        let behind = Err(Behind { limit });
        let mut pieces = Pieces::new(limit);
        pieces.push(text(&"x".repeat(limit))).expect("alone it is always kept");
        assert_eq!(pieces.push(text("x")), behind);
        assert!(pieces.since(1).expect("in range").is_empty());
        pieces.push(text("01234")).expect("there is room again");
        pieces.push(text("56789")).expect("there is room");
        assert_eq!(pieces.push(text("")), behind, "a piece costs something without any text");
    }

    /// Pieces of one character counted one byte each, and took two hundred.
    #[test]
    fn what_is_counted_is_what_pieces_take_in_memory() {
        let piece = text("x");
        assert!(size(&piece) >= size_of::<Piece>() && size(&piece) < 400, "{}", size(&piece));
        let other = AlternativeToken {
            token: Some(1),
            text: Some(" word".to_owned()),
            bytes: Some(bytes::Bytes::from_static(b" word")),
            logprob: Some((-1.0).into()),
        };
        let token = TokenLogprob { top: Some(vec![Box::new(other); 20]), ..TokenLogprob::default() };
        let with_others = Piece { logprobs: Some(vec![token]), ..piece };
        let each = (size(&with_others) - PIECE) / 20;
        assert!((100..250).contains(&each), "{each} bytes for an alternative");
    }

    #[test]
    fn there_is_one_end_and_nothing_after_it() {
        let mut pieces = Pieces::new(1);
        pieces.push(text("a")).expect("there is room");
        pieces.end(broken(&Fault::cancelled("first")));
        pieces.end(broken(&Fault::internal("second")));
        pieces.push(text("")).expect("it fits");
        let all = pieces.since(0).expect("in range");
        assert_eq!((numbers(&all), all[1].error_message.as_deref()), (vec![0, 1], Some("first")));
        assert!(pieces.is_ended());
    }
}
