//! Bytes that the code tables of a lossless WebP stream take in its decoder, found by reading the stream up to its pixels.
//!
//! Why: a few bits in the file can make the decoder build tables of 4 KiB for each of 65,536 groups of codes, 1.3 GB from a
//! file of 4 MB. Neither the header nor the decoder's own limits show it.
//! The format: [RFC 9649, section 3](https://www.rfc-editor.org/rfc/rfc9649#section-3). Nothing is allocated, and nothing of
//! the picture is kept: of the image that assigns groups only the largest number counts, and what is copied inside it was
//! there before. Work is bounded by the stream's bits and by a sixteenth of the picture's pixels.
//! Not here: judging. A stream that ends or breaks a rule is told by its decoder, which has built no more by then.

use super::webp;

/// Green with lengths and colour cache, red, blue, alpha, distance.
const ALPHABETS: [usize; 5] = [256 + 24, 256, 256, 256, 40];
const MAX_CACHE_BITS: u32 = 11;
const LARGEST_ALPHABET: usize = 256 + 24 + (1 << MAX_CACHE_BITS);
const LENGTH_CODES: usize = 19;
const LENGTH_CODE_ORDER: [usize; LENGTH_CODES] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const LONGEST_CODE: usize = 15;
/// Codes up to this length are looked up in one table of the decoder's; longer ones are nodes of a tree.
const TABLE_BITS: usize = 10;
/// Of the decoder: an entry, two nodes for each longer code, and what five empty tables take while their list grows.
const ENTRY_BYTES: u64 = 4;
const TREE_BYTES: u64 = 32;
const GROUP_BYTES: u64 = 640;

/// What five codes can take at most, with the largest colour cache.
const LARGEST_GROUP_BYTES: u64 =
    GROUP_BYTES + 5 * (ENTRY_BYTES << TABLE_BITS) + TREE_BYTES * (LARGEST_ALPHABET as u64 + 3 * 256 + 40);

/// Room for tables that every picture has, beside four bytes for each of its file's. libwebp's encoder, at all of its efforts
/// and with pictures of 2 and 12 megapixels, made tables of 9 to 411 KB.
const ROOM: u64 = 4 << 20;

/// What the tables of a picture of this size in a file of so many bytes may take.
pub(crate) fn limit((width, height): (u32, u32), bytes: u64) -> u64 {
    let blocks = u64::from(width.div_ceil(4)) * u64::from(height.div_ceil(4));
    // The images that are read before the pixels have one group each, one after another.
    (ROOM + bytes * 4).min((blocks + 1) * LARGEST_GROUP_BYTES)
}

/// The largest number of bytes that tables of a stream in this file take at a time. Stops counting above `most`.
pub(crate) fn bytes(file: &[u8], size: (u32, u32), most: u64) -> u64 {
    let of_stream = |(stream, size)| {
        let mut scan = Scan { bits: Bits { bytes: stream, at: 0 }, size, most, tables: 0 };
        // The end of a stream is nothing to tell here.
        let _ = scan.run();
        scan.tables
    };
    webp::lossless_streams(file, size).map(of_stream).max().unwrap_or_default()
}

/// The stream ends, or its decoder will refuse it.
struct Over;

struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<usize, Over> {
        let byte = *self.bytes.get(self.at / 8).ok_or(Over)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Ok(usize::from(bit))
    }

    /// At most 18, the lowest first.
    fn take(&mut self, count: u32) -> Result<usize, Over> {
        (0..count).try_fold(0, |value, place| Ok(value | self.bit()? << place))
    }
}

/// One prefix code: how many codes there are of each length, and their symbols in ascending order of code.
struct Code {
    counts: [u16; LONGEST_CODE + 1],
    symbols: [u16; LARGEST_ALPHABET],
    /// Nothing is read for the only symbol that there is.
    only: Option<usize>,
}

impl Code {
    const EMPTY: Self = Self { counts: [0; LONGEST_CODE + 1], symbols: [0; LARGEST_ALPHABET], only: None };

    /// From the length of each symbol's code, 0 for those that do not occur.
    fn build(&mut self, lengths: &[u8]) -> Result<(), Over> {
        self.counts = [0; LONGEST_CODE + 1];
        for length in lengths {
            self.counts[usize::from(*length)] += 1;
        }
        self.counts[0] = 0;
        self.only = None;
        let mut places = [0_usize; LONGEST_CODE + 2];
        let mut left = 1_usize;
        for length in 1..=LONGEST_CODE {
            let count = usize::from(self.counts[length]);
            places[length + 1] = places[length] + count;
            left = (left * 2).saturating_sub(count);
        }
        let used = places[LONGEST_CODE + 1];
        if used == 0 {
            return Err(Over);
        }
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let place = &mut places[usize::from(*length)];
            self.symbols[*place] = symbol as u16;
            *place += 1;
        }
        if used == 1 {
            self.only = Some(usize::from(self.symbols[0]));
        } else if left != 0 {
            return Err(Over);
        }
        Ok(())
    }

    /// Bytes of its tables.
    fn bytes(&self) -> u64 {
        if self.only.is_some() {
            return 0;
        }
        let longest = self.counts.iter().rposition(|count| *count > 0).unwrap_or_default();
        let long: u64 = self.counts[TABLE_BITS + 1..].iter().map(|count| u64::from(*count)).sum();
        (ENTRY_BYTES << longest.min(TABLE_BITS)) + TREE_BYTES * (long + 1)
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<usize, Over> {
        if let Some(only) = self.only {
            return Ok(only);
        }
        let (mut code, mut first, mut place) = (0_usize, 0_usize, 0_usize);
        for count in &self.counts[1..] {
            let count = usize::from(*count);
            code |= bits.bit()?;
            if code < first + count {
                return Ok(usize::from(self.symbols[place + code - first]));
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(Over)
    }
}

struct Scan<'a> {
    bits: Bits<'a>,
    size: (u32, u32),
    most: u64,
    /// Bytes of tables so far.
    tables: u64,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), Over> {
        let (mut width, height) = self.size;
        let mut seen = [false; 4];
        while self.bits.bit()? == 1 {
            let kind = self.bits.take(2)?;
            if std::mem::replace(&mut seen[kind], true) {
                return Err(Over);
            }
            match kind {
                // Predictor and colour: a value for each block.
                0 | 1 => {
                    let block = self.bits.take(3)? as u32 + 2;
                    self.image(blocks(width, block), blocks(height, block))?;
                }
                // Green subtracted.
                2 => {}
                // A palette: of up to 16 colours, several share a pixel.
                _ => {
                    let colours = self.bits.take(8)? as u32 + 1;
                    self.image(colours, 1)?;
                    width = blocks(
                        width,
                        [3, 2, 1, 0][usize::from(colours > 2) + usize::from(colours > 4) + usize::from(colours > 16)],
                    );
                }
            }
        }
        let cache = self.cache()?;
        let mut groups = 1;
        if self.bits.bit()? == 1 {
            let block = self.bits.take(3)? as u32 + 2;
            groups = self.image(blocks(width, block), blocks(height, block))? + 1;
        }
        let mut code = Code::EMPTY;
        for _ in 0..groups {
            self.tables += GROUP_BYTES;
            for alphabet in alphabets(cache) {
                self.code(alphabet, &mut code)?;
                self.tables += code.bytes();
            }
            if self.tables > self.most {
                return Err(Over);
            }
        }
        Ok(())
    }

    /// Reads an image that is not the picture itself. The largest of its values' middle 16 bits.
    fn image(&mut self, width: u32, height: u32) -> Result<usize, Over> {
        let cache = self.cache()?;
        let mut codes = [const { Code::EMPTY }; 5];
        for (code, alphabet) in codes.iter_mut().zip(alphabets(cache)) {
            self.code(alphabet, code)?;
        }
        let [green, red, blue, alpha, distance] = &codes;
        let pixels = width as usize * height as usize;
        let (mut at, mut largest) = (0, 0);
        while at < pixels {
            match green.read(&mut self.bits)? {
                level @ ..256 => {
                    largest = largest.max(red.read(&mut self.bits)? << 8 | level);
                    blue.read(&mut self.bits)?;
                    alpha.read(&mut self.bits)?;
                    at += 1;
                    // Nothing is read for the others either: all are alike.
                    if [green, red, blue, alpha].iter().all(|code| code.only.is_some()) {
                        break;
                    }
                }
                symbol @ ..280 => {
                    at += self.extended(symbol - 256)?;
                    let symbol = distance.read(&mut self.bits)?;
                    self.extended(symbol)?;
                }
                _ => at += 1,
            }
        }
        Ok(largest)
    }

    /// A length or distance: small ones are symbols of their own, of others the symbol gives the magnitude.
    fn extended(&mut self, symbol: usize) -> Result<usize, Over> {
        if symbol < 4 {
            return Ok(symbol + 1);
        }
        let extra = (symbol as u32 - 2) >> 1;
        Ok(((2 + (symbol & 1)) << extra) + self.bits.take(extra)? + 1)
    }

    fn cache(&mut self) -> Result<u32, Over> {
        if self.bits.bit()? == 0 {
            return Ok(0);
        }
        match self.bits.take(4)? as u32 {
            bits @ 1..=MAX_CACHE_BITS => Ok(bits),
            _ => Err(Over),
        }
    }

    /// One symbol or two; two have a bit each even if they are the same.
    fn simple_code(&mut self, alphabet: usize, code: &mut Code) -> Result<(), Over> {
        let second = self.bits.bit()? == 1;
        let wide = self.bits.bit()? as u32;
        let first = self.bits.take(1 + 7 * wide)?;
        let symbols = [first, if second { self.bits.take(8)? } else { first }];
        if symbols.iter().any(|symbol| *symbol >= alphabet) {
            return Err(Over);
        }
        code.counts = [0; LONGEST_CODE + 1];
        code.counts[1] = 2;
        code.symbols[..2].copy_from_slice(&symbols.map(|symbol| symbol as u16));
        code.only = (!second).then_some(first);
        Ok(())
    }

    fn code(&mut self, alphabet: usize, code: &mut Code) -> Result<(), Over> {
        if self.bits.bit()? == 1 {
            return self.simple_code(alphabet, code);
        }
        let mut lengths = [0_u8; LARGEST_ALPHABET];
        let mut of_lengths = [0_u8; LENGTH_CODES];
        for place in &LENGTH_CODE_ORDER[..4 + self.bits.take(4)?] {
            of_lengths[*place] = self.bits.take(3)? as u8;
        }
        code.build(&of_lengths)?;
        let mut left = alphabet;
        if self.bits.bit()? == 1 {
            let bits = 2 + 2 * self.bits.take(3)? as u32;
            left = 2 + self.bits.take(bits)?;
        }
        let (mut at, mut previous) = (0, 8);
        while at < alphabet && left > 0 {
            left -= 1;
            let (length, repeat) = match code.read(&mut self.bits)? {
                length @ ..16 => (length as u8, 1),
                16 => (previous, 3 + self.bits.take(2)?),
                17 => (0, 3 + self.bits.take(3)?),
                _ => (0, 11 + self.bits.take(7)?),
            };
            lengths.get_mut(at..at + repeat).filter(|_| at + repeat <= alphabet).ok_or(Over)?.fill(length);
            at += repeat;
            if length > 0 {
                previous = length;
            }
        }
        code.build(&lengths[..alphabet])
    }
}

fn blocks(edge: u32, bits: u32) -> u32 {
    edge.div_ceil(1 << bits)
}

fn alphabets(cache: u32) -> [usize; 5] {
    let [green, rest @ ..] = ALPHABETS;
    let cached = if cache > 0 { 1 << cache } else { 0 };
    let [red, blue, alpha, distance] = rest;
    [green + cached, red, blue, alpha, distance]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes bits, the lowest first.
    #[derive(Default)]
    struct Writer {
        bytes: Vec<u8>,
        used: u32,
    }

    impl Writer {
        fn put(&mut self, value: u32, count: u32) {
            for place in 0..count {
                if self.used.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                *self.bytes.last_mut().expect("there is one") |= ((value >> place & 1) as u8) << (self.used % 8);
                self.used += 1;
            }
        }

        /// A code with one symbol, or with two of one bit each.
        fn simple(&mut self, symbols: &[u32]) {
            self.put(1, 1);
            self.put(symbols.len() as u32 - 1, 1);
            self.put(1, 1);
            for symbol in symbols {
                self.put(*symbol, 8);
            }
        }

        /// A code of ten bits, one symbol of each length and two of the longest: a table of 4 KiB from 14 bytes.
        fn long(&mut self) {
            self.put(0, 1);
            self.put(15, 4);
            // The lengths themselves: four bits each, none repeated.
            for place in LENGTH_CODE_ORDER {
                self.put(if place < 16 { 4 } else { 0 }, 3);
            }
            // Eleven lengths follow.
            self.put(1, 1);
            self.put(1, 3);
            self.put(9, 4);
            for length in (1..=10_u32).chain([10]) {
                // Codes are read from their highest bit on.
                self.put(length.reverse_bits() >> 28, 4);
            }
        }
    }

    /// A file with one lossless stream, whose pixels are split into `groups` groups of codes.
    fn hostile(edge: u32, groups: u32) -> Vec<u8> {
        let mut stream = Writer::default();
        stream.put(0x2f, 8);
        stream.put(edge - 1, 14);
        stream.put(edge - 1, 14);
        stream.put(0, 4);
        // No transform, no colour cache, blocks of 4x4 pixels.
        stream.put(0, 2);
        stream.put(1, 1);
        stream.put(0, 3);
        // Their groups: the first block has the last one, all others the first.
        stream.put(0, 1);
        let last = groups - 1;
        stream.simple(&[0, last & 255]);
        stream.simple(&[0, last >> 8]);
        for _ in 0..3 {
            stream.simple(&[0]);
        }
        let blocks = edge.div_ceil(4).pow(2);
        for block in 0..blocks {
            stream.put(if block == 0 { 3 } else { 0 }, 2);
        }
        for _ in 0..groups * 5 {
            stream.long();
        }
        let body = stream.bytes;
        let mut file = b"RIFF....WEBPVP8L".to_vec();
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(&body);
        let size = (file.len() as u32 - 8).to_le_bytes();
        file[4..8].copy_from_slice(&size);
        file
    }

    #[test]
    fn tables_of_many_groups_are_counted_and_refused_before_they_are_built() {
        let file = hostile(1024, 3000);
        assert!(file.len() < 240_000, "{}", file.len());
        let counted = bytes(&file, (1024, 1024), u64::MAX);
        assert!((3000 * 5 * 4096..3000 * 6 * 4096).contains(&counted), "{counted}");

        let header = crate::inspect(&file, &crate::Limits::default()).expect("its header is in order");
        let refused = header.check_tables(&file).expect_err("3,000 groups of 20 KiB are over 5 MiB");
        assert!(matches!(refused, crate::Excess::Memory { .. }));
        let refused = crate::decode(&file, &header, &crate::Wanted::EVERYTHING, [0; 3]).expect_err("the same");
        assert_eq!(refused.to_string(), "WebP needs more memory than its size explains");
    }

    #[test]
    fn what_stays_within_the_room_goes_on_to_the_decoder() {
        let file = hostile(64, 150);
        let header = crate::inspect(&file, &crate::Limits::default()).expect("its header is in order");
        header.check_tables(&file).expect("150 groups fit");
        // Its pixels are missing, which the decoder finds out.
        let error = crate::decode(&file, &header, &crate::Wanted::EVERYTHING, [0; 3]).expect_err("it is cut off");
        assert!(matches!(error, crate::ImageError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_stream_that_ends_anywhere_is_counted_up_to_there() {
        let file = hostile(64, 150);
        let whole = bytes(&file, (64, 64), u64::MAX);
        let mut before = 0;
        for end in (0..file.len()).step_by(31).chain([file.len()]) {
            let counted = bytes(&file[..end], (64, 64), u64::MAX);
            assert!((before..=whole).contains(&counted), "{end}: {before}, {counted}, {whole}");
            before = counted;
        }
        assert_eq!(before, whole);
    }

    #[test]
    fn codes_are_read_as_they_were_written() {
        let mut code = Code::EMPTY;
        let mut written = Writer::default();
        written.long();
        // 0, then ten ones, then 110.
        written.put(0, 1);
        written.put(0x3ff, 10);
        written.put(0b011, 3);
        let mut scan = Scan { bits: Bits { bytes: &written.bytes, at: 0 }, size: (1, 1), most: 0, tables: 0 };
        assert!(scan.code(280, &mut code).is_ok());
        assert_eq!(code.bytes(), 4096 + TREE_BYTES);
        let read: Vec<usize> = (0..3).filter_map(|_| code.read(&mut scan.bits).ok()).collect();
        assert_eq!(read, [0, 10, 2]);
    }
}
