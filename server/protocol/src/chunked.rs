//! Chunked bodies, RFC 9112 section 7.1: a request's, decoded as its bytes arrive; a response's chunk heads, written.
//!
//! Strict where leniency has been used for smuggling: a size is hexadecimal digits and nothing else, every line ends
//! in CR LF, and after the data comes CR LF. Extensions and trailers are bounded, checked for controls, and dropped:
//! nothing here understands any, and a trailer that became a header would be one that no proxy had looked at.

use std::ops::Range;

use super::refusal::Refusal;

/// The most bytes of one chunk's extensions.
const MAX_EXTENSION: u16 = 1024;
/// The most bytes of all trailers together.
const MAX_TRAILERS: u16 = 8192;
/// The most digits of a chunk's size: what 64 bits hold.
const MAX_DIGITS: u8 = 16;

/// What [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the input are the body's or its framing's.
    pub consumed: usize,
    /// Where in the input the bytes of the body are now. What else was in the consumed input is overwritten.
    pub data: Range<usize>,
    /// The body is complete. Input beyond the consumed bytes belongs to the next request.
    pub is_whole: bool,
}

/// Where in the body the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    /// White space between the size and an extension.
    BeforeExtension {
        value: u64,
        seen: u16,
    },
    Extension {
        value: u64,
        seen: u16,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart {
        seen: u16,
    },
    Trailer {
        seen: u16,
    },
    TrailerLf {
        seen: u16,
    },
    EndLf,
    Done,
}

/// Decodes one chunked body, in pieces of any size.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder before the first byte of a body.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::Size { value: 0, digits: 0 } }
    }

    /// Takes the next bytes of the body, and moves what they held together, so that its reader has one piece to keep,
    /// however small the chunks are. Everything is consumed, unless the body ends.
    ///
    /// # Errors
    /// A [`Refusal`] (400, or 431 for trailers without end) when this is no chunked body. The connection cannot be
    /// used any more, nor can the decoder.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, Refusal> {
        let (mut at, mut data) = (0, 0..0);
        let mut state = self.state;
        while at < input.len() && state != State::Done {
            state = match state {
                State::Data { left } => {
                    let rest = input.len() - at;
                    let taken = usize::try_from(left).map_or(rest, |left| rest.min(left));
                    append(input, &mut data, at..at + taken);
                    at += taken;
                    match left - taken as u64 {
                        0 => State::DataCr,
                        left => State::Data { left },
                    }
                }
                State::DataCr if input[at..].starts_with(CHUNK_END) => {
                    at += CHUNK_END.len();
                    State::Size { value: 0, digits: 0 }
                }
                State::Size { digits: 0, .. } => match size_line(&input[at..]) {
                    Some((len, value)) => {
                        at += len;
                        after_size(value)
                    }
                    None => {
                        at += 1;
                        next(state, input[at - 1])?
                    }
                },
                // As long as may be, a turn would be spent on looking at each byte for itself.
                State::Extension { value, seen } if is_text(input[at]) && seen < MAX_EXTENSION => {
                    let len = text_len(&input[at..], MAX_EXTENSION - seen);
                    at += usize::from(len);
                    State::Extension { value, seen: seen + len }
                }
                state => {
                    at += 1;
                    next(state, input[at - 1])?
                }
            };
        }
        self.state = state;
        Ok(Decoded { consumed: at, data, is_whole: state == State::Done })
    }
}

/// Has `data` go on with the bytes at `more`, which are behind it. The first piece stays where it is.
#[inline]
fn append(input: &mut [u8], data: &mut Range<usize>, more: Range<usize>) {
    if data.start == data.end {
        *data = more;
        return;
    }
    let len = more.len();
    if let [byte] = input[more.clone()] {
        input[data.end] = byte;
    } else {
        input.copy_within(more, data.end);
    }
    data.end += len;
}

/// A size line as nearly all are, with its length: digits and CR LF, all of it here. Others go byte by byte.
#[inline]
fn size_line(input: &[u8]) -> Option<(usize, u64)> {
    let mut value = 0;
    for (at, &byte) in input.iter().enumerate().take(usize::from(MAX_DIGITS) + 1) {
        match char::from(byte).to_digit(16) {
            Some(digit) if at < usize::from(MAX_DIGITS) => value = value << 4 | u64::from(digit),
            None if at > 0 && input[at..].starts_with(b"\r\n") => return Some((at + 2, value)),
            _ => return None,
        }
    }
    None
}

/// The state after a chunk's size line.
fn after_size(size: u64) -> State {
    if size == 0 { State::TrailerStart { seen: 0 } } else { State::Data { left: size } }
}

/// The state after a byte that is not data.
fn next(state: State, byte: u8) -> Result<State, Refusal> {
    let bad = |reason| Err(Refusal { status: 400, reason });
    Ok(match (state, byte) {
        (State::Size { value, digits }, _) => match (char::from(byte).to_digit(16), byte) {
            (Some(_), _) if digits == MAX_DIGITS => return bad("a chunk's size is too large"),
            (Some(digit), _) => State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 },
            (None, _) if digits == 0 => return bad("a chunk's size is missing or not hexadecimal"),
            (None, b'\r') => State::SizeLf { value },
            (None, b';') => State::Extension { value, seen: 0 },
            (None, b' ' | b'\t') => State::BeforeExtension { value, seen: 0 },
            (None, _) => return bad("a chunk's size is not hexadecimal"),
        },
        (State::BeforeExtension { value, .. }, b';') => State::Extension { value, seen: 0 },
        (State::BeforeExtension { value, seen }, b' ' | b'\t') if seen < MAX_EXTENSION => {
            State::BeforeExtension { value, seen: seen + 1 }
        }
        (State::BeforeExtension { .. }, _) => return bad("a chunk's size is followed by white space"),
        (State::Extension { value, .. }, b'\r') => State::SizeLf { value },
        (State::Extension { seen: MAX_EXTENSION, .. }, _) => return bad("a chunk's extensions are too long"),
        (State::Extension { value, seen }, _) if is_text(byte) => State::Extension { value, seen: seen + 1 },
        (State::Extension { .. }, _) => return bad("a chunk's extensions have a control character"),
        (State::SizeLf { value }, b'\n') => after_size(value),
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
        (State::DataCr | State::DataLf, _) => return bad("a chunk is longer than its size"),
        (State::TrailerStart { .. }, b'\r') => State::EndLf,
        (State::TrailerStart { seen } | State::Trailer { seen }, _) if seen == MAX_TRAILERS => {
            return Err(Refusal { status: 431, reason: "the request's trailers are too long" });
        }
        (State::TrailerStart { .. }, b' ' | b'\t' | b':') => return bad("a trailer is folded or has no name"),
        (State::Trailer { seen }, b'\r') => State::TrailerLf { seen },
        (State::TrailerStart { seen } | State::Trailer { seen }, _) if is_text(byte) => {
            State::Trailer { seen: seen + 1 }
        }
        (State::TrailerStart { .. } | State::Trailer { .. }, _) => return bad("a trailer has a control character"),
        (State::TrailerLf { seen }, b'\n') => State::TrailerStart { seen },
        (State::EndLf, b'\n') => State::Done,
        (State::SizeLf { .. } | State::TrailerLf { .. } | State::EndLf, _) => {
            return bad("a line of the chunked body does not end in CR LF");
        }
        (State::Data { .. } | State::Done, _) => state,
    })
}

/// How many bytes of field content there are, `most` at most.
fn text_len(input: &[u8], most: u16) -> u16 {
    let input = &input[..input.len().min(usize::from(most))];
    input.iter().position(|byte| !is_text(*byte)).unwrap_or(input.len()) as u16
}

/// Field content: no control but a tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// What goes after each chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk and the end of the (empty) trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A chunk's size line, on the stack.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    text: [u8; 18],
    start: u8,
}

impl ChunkHead {
    /// The line for a chunk of `len` bytes, which must not be 0: that would be [`LAST_CHUNK`].
    #[must_use]
    pub fn new(len: usize) -> Self {
        debug_assert!(len > 0, "an empty chunk ends the body");
        let mut text = [0; 18];
        text[16..].copy_from_slice(b"\r\n");
        let mut start = 16;
        let mut left = len as u64;
        while left > 0 {
            start -= 1;
            text[start] = b"0123456789abcdef"[(left & 15) as usize];
            left >>= 4;
        }
        // At most 16.
        Self { text, start: start as u8 }
    }

    /// The line with its CR LF.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[usize::from(self.start)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body and the bytes that are left over; input given in pieces of the sizes in `cuts`, over and over.
    fn decode(input: &[u8], cuts: &[usize]) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        let mut decoder = Decoder::new();
        let (mut body, mut at) = (Vec::new(), 0);
        let mut cuts = cuts.iter().cycle();
        while at < input.len() {
            let piece_end = input.len().min(at + (*cuts.next().unwrap()).max(1));
            let mut piece = input[at..piece_end].to_vec();
            let Decoded { consumed, data, is_whole } = decoder.decode(&mut piece)?;
            assert!(data.end <= consumed);
            assert_eq!(piece[consumed..], input[at + consumed..piece_end], "the next request's");
            body.extend_from_slice(&piece[data]);
            at += consumed;
            if is_whole {
                return Ok(Some((body, input.len() - at)));
            }
            assert_eq!(at, piece_end);
        }
        Ok(None)
    }

    #[test]
    fn a_body_is_its_chunks_in_a_row() {
        for (input, body, left) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello", 0),
            (b"5\r\nhello\r\n1\r\n \r\n00005\r\nworld\r\n000\r\n\r\nGET /", b"hello world", 5),
            (b"A\r\n0123456789\r\na;name=\"value\"\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", 0),
            (b"1 \t;x\r\na\r\n0;last\r\nX-Sum: 1\r\nY: \xe9\r\n\r\n", b"a", 0),
        ] {
            assert_eq!(decode(input, &[input.len()]), Ok(Some((body.to_vec(), left))), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let long_extension = [b"1;".as_slice(), &[b'x'; 1025], b"\r\na\r\n0\r\n\r\n"].concat();
        for input in [
            &b"\r\n"[..],
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n0\r\n\r\n",
            b"g\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\rhello\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello world\r\n0\r\n\r\n",
            b"11111111111111111\r\n",
            b"00000000000000001\r\na\r\n0\r\n\r\n",
            b"1;a\nb\r\na\r\n0\r\n\r\n",
            b"1;a\rb\r\na\r\n0\r\n\r\n",
            b"1;a\0b\r\na\r\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\nX: 1\r\n folded\r\n\r\n",
            b"0\r\n: nameless\r\n\r\n",
            b"0\r\nX: \0\r\n\r\n",
            &long_extension,
        ] {
            assert_eq!(
                decode(input, &[input.len()]).map_err(|refusal| refusal.status),
                Err(400),
                "{}",
                input.escape_ascii()
            );
        }
        let trailers = [b"0\r\n".as_slice(), &b"X: 1234567890\r\n".repeat(700), b"\r\n"].concat();
        assert_eq!(decode(&trailers, &[trailers.len()]).map_err(|refusal| refusal.status), Err(431));
    }

    #[test]
    fn what_was_read_at_once_is_one_piece_however_small_its_chunks_are() {
        let mut input = b"1\r\nx\r\n".repeat(10_000);
        input.extend_from_slice(b"3\r\nabc\r\n0\r\n\r\nGET /");
        let decoded = Decoder::new().decode(&mut input).unwrap();
        assert!(decoded.is_whole);
        assert_eq!(input[decoded.data], *[b"x".repeat(10_000).as_slice(), b"abc"].concat());
        assert_eq!(input[decoded.consumed..], *b"GET /");
    }

    #[test]
    fn an_incomplete_body_asks_for_more() {
        let input = b"5;x\r\nhello\r\n0\r\nX: 1\r\n\r\n";
        for end in 0..input.len() {
            assert_eq!(decode(&input[..end], &[input.len()]), Ok(None), "{end}");
        }
    }

    #[test]
    fn the_largest_size_is_taken_and_counted() {
        let mut decoder = Decoder::new();
        let decoded = Decoded { consumed: 21, data: 18..21, is_whole: false };
        assert_eq!(decoder.decode(&mut b"ffffffffffffffff\r\nabc".to_owned()), Ok(decoded));
        assert_eq!(decoder.state, State::Data { left: u64::MAX - 3 });
    }

    #[test]
    fn a_chunk_head_is_the_length_in_hexadecimal() {
        for (len, text) in [(1, "1\r\n"), (16, "10\r\n"), (65_535, "ffff\r\n"), (usize::MAX, "ffffffffffffffff\r\n")] {
            assert_eq!(ChunkHead::new(len).as_bytes(), text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_body(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..8),
            extension in prop::option::of("[ -~]{0,20}"),
            cuts in prop::collection::vec(1usize..20, 1..10),
            after in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                match &extension {
                    Some(extension) => input.extend_from_slice(format!("{:X};{extension}\r\n", chunk.len()).as_bytes()),
                    None => input.extend_from_slice(ChunkHead::new(chunk.len()).as_bytes()),
                }
                input.extend_from_slice(chunk);
                input.extend_from_slice(CHUNK_END);
            }
            input.extend_from_slice(LAST_CHUNK);
            let end = input.len();
            input.extend_from_slice(&after);
            let (body, left) = decode(&input, &cuts)?.expect("complete");
            prop_assert_eq!(body, chunks.concat());
            prop_assert!(left <= input.len() - end);
            prop_assert_eq!(decode(&input[..end], &cuts), decode(&input[..end], &[end]));
        }

        #[test]
        fn any_bytes_give_the_same_answer_however_they_are_split(
            input in "[0-9a-f;\r\n \0x:]{0,60}",
            cuts in prop::collection::vec(1usize..9, 1..5),
        ) {
            let input = input.as_bytes();
            let whole = decode(input, &[input.len().max(1)]).map(|done| done.map(|(body, _)| body));
            prop_assert_eq!(whole, decode(input, &cuts).map(|done| done.map(|(body, _)| body)));
        }
    }
}
