//! Bytes of tokens to text that may leave: whole characters, nothing of a stop text.

/// Turns the bytes of one answer's tokens into text, and ends it at a stop text.
#[derive(Debug)]
pub struct Text {
    /// Bytes that are no whole character yet.
    open: Vec<u8>,
    /// Text that may still turn out to be the beginning of a stop text.
    held: String,
    stops: Vec<String>,
}

/// What became of some more bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// Text that can leave.
    pub text: String,
    /// The stop text that ended the answer, by its place in the list; it is no part of the text.
    pub stopped: Option<usize>,
}

impl Text {
    /// For one answer, which ends at the first of `stops`.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self { open: Vec::new(), held: String::new(), stops }
    }

    /// Takes a token's bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Told {
        self.open.extend_from_slice(bytes);
        self.take_characters(false);
        if let Some((at, stop)) = self.find_stop() {
            self.held.truncate(at);
            return Told { text: std::mem::take(&mut self.held), stopped: Some(stop) };
        }
        let kept = self.held.len() - self.could_begin_a_stop();
        let rest = self.held.split_off(kept);
        Told { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// What is left when the answer ends for another reason: a character that was cut off is U+FFFD.
    pub fn finish(&mut self) -> String {
        self.take_characters(true);
        std::mem::take(&mut self.held)
    }

    fn take_characters(&mut self, all: bool) {
        let mut from = 0;
        loop {
            match std::str::from_utf8(&self.open[from..]) {
                Ok(text) => {
                    self.held.push_str(text);
                    from = self.open.len();
                    break;
                }
                Err(error) => {
                    let valid = &self.open[from..from + error.valid_up_to()];
                    self.held.push_str(&String::from_utf8_lossy(valid));
                    from += error.valid_up_to();
                    match error.error_len() {
                        Some(wrong) => {
                            self.held.push(char::REPLACEMENT_CHARACTER);
                            from += wrong;
                        }
                        None if all => {
                            self.held.push(char::REPLACEMENT_CHARACTER);
                            from = self.open.len();
                            break;
                        }
                        None => break,
                    }
                }
            }
        }
        self.open.drain(..from);
    }

    /// The first stop text in what is held: its place, and which it is. Of two at one place the longer one.
    fn find_stop(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter_map(|(stop, text)| Some((self.held.find(text)?, stop)));
        found.min_by_key(|(at, stop)| (*at, usize::MAX - self.stops[*stop].len()))
    }

    /// How many bytes at the end of what is held begin a stop text.
    fn could_begin_a_stop(&self) -> usize {
        let of_one = |stop: &String| {
            let longest = self.held.len().min(stop.len().saturating_sub(1));
            (1..=longest).rev().find(|length| self.held.as_bytes().ends_with(&stop.as_bytes()[..*length]))
        };
        self.stops.iter().filter_map(of_one).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        Told { text: text.to_owned(), stopped: None }
    }

    #[test]
    fn characters_leave_whole() {
        let mut text = Text::new(Vec::new());
        let smile = "a\u{1f600}b".as_bytes();
        assert_eq!(text.push(&smile[..2]), told("a"));
        assert_eq!(text.push(&smile[2..4]), told(""));
        assert_eq!(text.push(&smile[4..]), told("\u{1f600}b"));
        assert_eq!(text.push(&[0xff, b'c', 0xe2, 0x82]), told("\u{fffd}c"));
        assert_eq!(text.push(b"d"), told("\u{fffd}d"));
        assert_eq!(text.push(&[0xe2, 0x82]), told(""));
        assert_eq!(text.finish(), "\u{fffd}");
        assert_eq!(text.finish(), "");
    }

    #[test]
    fn a_stop_text_is_found_however_it_is_cut() {
        let whole = "one two\n\nUser: three";
        for cut in 1..whole.len() {
            let mut text = Text::new(vec!["\n\nUser:".to_owned(), "never".to_owned()]);
            let (mut seen, mut stopped) = (String::new(), None);
            for part in whole.as_bytes().chunks(cut) {
                let told = text.push(part);
                seen.push_str(&told.text);
                if told.stopped.is_some() {
                    stopped = told.stopped;
                    break;
                }
                assert!(!seen.contains('\n'), "{cut}: {seen:?} has a part of the stop text");
            }
            assert_eq!((seen.as_str(), stopped), ("one two", Some(0)), "{cut}");
        }
    }

    #[test]
    fn what_only_looked_like_a_stop_text_leaves_after_all() {
        let mut text = Text::new(vec!["###".to_owned(), "aab".to_owned()]);
        assert_eq!(text.push(b"x##"), told("x"));
        assert_eq!(text.push(b"y"), told("##y"));
        assert_eq!(text.push(b"aaa"), told("a"), "the last two may still begin one");
        assert_eq!(text.push(b"b"), Told { text: String::new(), stopped: Some(1) });
        assert_eq!(text.push(b"tail ##"), told("tail "));
        assert_eq!(text.finish(), "##");
    }

    #[test]
    fn the_first_stop_text_wins_and_of_two_at_one_place_the_longer() {
        let mut text = Text::new(vec!["b".to_owned(), "ab".to_owned(), "abc".to_owned()]);
        assert_eq!(text.push(b"xabc"), Told { text: "x".to_owned(), stopped: Some(2) });
    }

    #[test]
    fn a_stop_text_with_wide_characters_cuts_between_characters() {
        let mut text = Text::new(vec!["\u{e9}\u{e9}".to_owned()]);
        let bytes = "a\u{e9}b\u{e9}\u{e9}".as_bytes();
        let seen: String = bytes.iter().map(|byte| text.push(&[*byte]).text).collect();
        assert_eq!(seen, "a\u{e9}b");
    }
}
