//! A request's body while it waits to be whole: in memory up to `post-buffering`, in an unlinked file beyond.

use std::fs::File;
use std::io::{self, Write};

use super::spool::unlinked_file;

/// A whole body, ready to be sent on.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Memory(Vec<u8>),
    /// From the file's beginning, this many bytes.
    File(File, u64),
}

impl Body {
    /// Bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }
}

/// A body that is being collected.
#[derive(Debug)]
pub(super) enum Store {
    /// `filled` bytes of `bytes` are there; what is beyond is room for the rest.
    Memory { bytes: Vec<u8>, filled: usize },
    /// Bytes are written at the end.
    File { file: File, len: u64 },
}

impl Store {
    /// For a body of a length that is known: room for all of it, or a file at once. Memory that was not written to yet
    /// is only promised by the kernel, so that a client cannot use it up by announcing alone.
    pub(super) fn of_length(length: u64, in_memory: u64) -> io::Result<Self> {
        match usize::try_from(length) {
            Ok(room) if length <= in_memory => Ok(Self::Memory { bytes: vec![0; room], filled: 0 }),
            _ => Ok(Self::File { file: unlinked_file()?, len: 0 }),
        }
    }

    /// For a chunked body.
    pub(super) fn growing() -> Self {
        Self::Memory { bytes: Vec::new(), filled: 0 }
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory { filled, .. } => *filled as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Where the rest of a body of known length can be read to without a copy.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Memory { bytes, filled } => Some(&mut bytes[*filled..]),
            Self::File { .. } => None,
        }
    }

    /// So many bytes were read to [`Store::room`].
    pub(super) fn filled(&mut self, more: usize) {
        if let Self::Memory { filled, .. } = self {
            *filled += more;
        }
    }

    /// Adds bytes; a body that grows beyond `in_memory` moves to a file.
    pub(super) fn push(&mut self, data: &[u8], in_memory: u64) -> io::Result<()> {
        if let Self::Memory { bytes, filled } = self {
            if (*filled + data.len()) as u64 <= in_memory || *filled + data.len() <= bytes.len() {
                match bytes.get_mut(*filled..*filled + data.len()) {
                    Some(room) => room.copy_from_slice(data),
                    None => {
                        bytes.truncate(*filled);
                        bytes.extend_from_slice(data);
                    }
                }
                *filled += data.len();
                return Ok(());
            }
            let mut file = unlinked_file()?;
            file.write_all(&bytes[..*filled])?;
            *self = Self::File { file, len: *filled as u64 };
        }
        if let Self::File { file, len } = self {
            file.write_all(data)?;
            *len += data.len() as u64;
        }
        Ok(())
    }

    /// The body, now that it is whole.
    pub(super) fn finish(self) -> Body {
        match self {
            Self::Memory { mut bytes, filled } => {
                bytes.truncate(filled);
                if bytes.is_empty() { Body::Empty } else { Body::Memory(bytes) }
            }
            Self::File { file, len } => Body::File(file, len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn content(body: Body) -> Vec<u8> {
        match body {
            Body::Empty => Vec::new(),
            Body::Memory(bytes) => bytes,
            Body::File(mut file, len) => {
                let mut bytes = Vec::new();
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, len);
                bytes
            }
        }
    }

    #[test]
    fn a_body_keeps_its_bytes_wherever_it_waits() {
        for pieces in [&[][..], &[3], &[10, 10], &[10, 10, 1], &[50], &[1, 50, 50]] {
            let expected: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|at| at as u8).collect();
            for known in [true, false] {
                let mut store =
                    if known { Store::of_length(expected.len() as u64, 20).unwrap() } else { Store::growing() };
                let mut rest = expected.as_slice();
                for piece in pieces {
                    let (data, after) = rest.split_at(*piece);
                    store.push(data, 20).unwrap();
                    rest = after;
                }
                assert_eq!(store.len(), expected.len() as u64);
                let body = store.finish();
                assert_eq!(matches!(body, Body::File(..)), expected.len() > 20, "{pieces:?} {known}");
                assert_eq!(content(body), expected);
            }
        }
    }

    #[test]
    fn room_is_filled_in_place() {
        let mut store = Store::of_length(5, 20).unwrap();
        store.push(b"ab", 20).unwrap();
        store.room().unwrap()[..2].copy_from_slice(b"cd");
        store.filled(2);
        assert_eq!(store.room().unwrap().len(), 1);
        store.push(b"e", 20).unwrap();
        assert_eq!(content(store.finish()), b"abcde");
    }
}
