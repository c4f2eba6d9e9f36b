//! Walks a thread's own frames, without the GIL: a signal handler does it, on the thread that is asked. Nothing here
//! allocates, locks or panics. What is read may be in the middle of a change, or anything: every step is bounded.

use super::layouts::{BYTES_HEAD_READ, CODE_READ, FRAME_READ, Innermost, Last, Layout, TEXT_HEAD_READ, ThreadCode};
use super::lines::line_at;
use super::own_memory::OwnMemory;

/// Frames that are written at most, the innermost ones.
pub(crate) const MOST_FRAMES: usize = 100;
/// Frames that are looked at at most.
const MOST_VISITED: usize = 400;
/// Bytes of a function's name that are kept, of its beginning.
pub(crate) const NAME_KEPT: usize = 160;
/// Bytes of a file's path that are kept, of its end.
pub(crate) const FILE_KEPT: usize = 240;
/// Before the texts of a frame: the lengths of both, the line.
pub(crate) const FRAME_HEAD: usize = 6;

/// What Python is, for a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Python {
    /// Where its structures have what.
    pub layout: &'static Layout,
    /// The address of `PyCode_Type`, by which a code object is known.
    pub code_type: usize,
    /// The address of `PyUnicode_Type`.
    pub text_type: usize,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the outermost frame.
    Whole,
    /// There was no space for more, or there are more than [`MOST_FRAMES`].
    Cut,
    /// What was found is no frame.
    Broken,
}

/// Where frames are written to: for each the lengths of its name and its file, its line, the name, the file.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Output<'a> {
    /// An empty one.
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// How much was written.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, bytes: &[u8]) -> bool {
        let place = self.bytes.get_mut(self.len..).and_then(|rest| rest.get_mut(..bytes.len()));
        let Some(place) = place else { return false };
        place.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The innermost frame of the thread whose `PyThreadState` is at `thread`; 0 when it is in no Python code.
#[must_use]
pub(crate) fn innermost(memory: &OwnMemory, python: &Python, thread: usize) -> Option<usize> {
    match python.layout.innermost {
        Innermost::At(offset) => memory.read_word(thread.wrapping_add(offset)),
        Innermost::Through(offset, second) => memory
            .read_word(thread.wrapping_add(offset))
            .and_then(|between| memory.read_word(between.wrapping_add(second))),
    }
}

/// Writes the frames of the thread whose `PyThreadState` is at `thread`, the innermost first, without the one at `base`
/// and those around it.
pub(crate) fn walk(memory: &OwnMemory, python: &Python, thread: usize, base: usize, output: &mut Output<'_>) -> End {
    let Some(mut frame) = innermost(memory, python, thread) else { return End::Broken };
    let mut written = 0;
    for _ in 0..MOST_VISITED {
        if frame == 0 || frame == base {
            return End::Whole;
        }
        let Some(bytes) = memory.read_least::<FRAME_READ>(frame, python.layout.frame.end) else { return End::Broken };
        let Some(seen) = look(memory, python, &bytes) else { return End::Broken };
        if let Seen::Function { code, address } = seen {
            if written == MOST_FRAMES {
                return End::Cut;
            }
            let before = output.len;
            if !write(memory, python, &code, address, output) {
                output.len = before;
                return End::Cut;
            }
            written += 1;
        }
        frame = word(&bytes, python.layout.frame.caller);
    }
    End::Cut
}

/// What a frame is.
#[expect(clippy::large_enum_variant, reason = "a handler has no heap")]
enum Seen {
    /// A function's: its code object, and the address of its instruction in that.
    Function { code: [u8; CODE_READ], address: i64 },
    /// The interpreter's own, or one that has not begun.
    Nothing,
}

fn look(memory: &OwnMemory, python: &Python, frame: &[u8; FRAME_READ]) -> Option<Seen> {
    let layout = &python.layout.frame;
    let owner = layout.owner.as_ref().map(|owners| (byte(frame, owners.at), owners));
    if owner.is_some_and(|(owner, owners)| owner >= owners.foreign) {
        return Some(Seen::Nothing);
    }
    let code = word(frame, layout.code) & !layout.tag;
    let code_bytes = memory.read_least::<CODE_READ>(code, python.layout.code.end)?;
    if word(&code_bytes, python.layout.object.kind) != python.code_type {
        return None;
    }
    let address = match layout.last {
        Last::Index(at, size) => i64::from(number(frame, at)) * i64::from(size),
        Last::Pointer(_) | Last::OfThread(_) => {
            let (instructions, first) = python.layout.code.instructions?;
            let own = code.wrapping_add(instructions);
            let (at, start) = match layout.last {
                Last::OfThread(of) => (of.pointer, copy_of_thread(memory, of, frame, &code_bytes).unwrap_or(own)),
                Last::Pointer(at) | Last::Index(at, _) => (at, own),
            };
            let address = (word(frame, at) as i64).wrapping_sub(start as i64);
            let is_generator = owner.is_some_and(|(owner, owners)| owner == owners.generator);
            if !is_generator && address < i64::from(number(&code_bytes, first)).wrapping_mul(2) {
                return Some(Seen::Nothing);
            }
            address
        }
    };
    Some(Seen::Function { code: code_bytes, address })
}

/// Where the instructions are that the frame's thread executes; `None` for the code object's own.
fn copy_of_thread(
    memory: &OwnMemory,
    of: ThreadCode,
    frame: &[u8; FRAME_READ],
    code: &[u8; CODE_READ],
) -> Option<usize> {
    let number = usize::try_from(number(frame, of.number)).ok().filter(|number| *number > 0)?;
    let place = word(code, of.array).checked_add(of.first)?.checked_add(number.checked_mul(8)?)?;
    memory.read_word(place).filter(|start| *start != 0)
}

fn write(memory: &OwnMemory, python: &Python, code: &[u8; CODE_READ], address: i64, output: &mut Output<'_>) -> bool {
    let layout = &python.layout.code;
    let head = output.len;
    if !output.push(&[0; FRAME_HEAD]) {
        return false;
    }
    let line = line(memory, python.layout, code, address);
    let start = output.len;
    if !text::<NAME_KEPT>(memory, python, word(code, layout.name), false, output) {
        return false;
    }
    let middle = output.len;
    if !text::<FILE_KEPT>(memory, python, word(code, layout.file), true, output) {
        return false;
    }
    // Both fit: the most that is kept of a text is less than 256.
    output.set(head, &[(middle - start) as u8, (output.len - middle) as u8]);
    output.set(head + 2, &line.to_le_bytes());
    true
}

/// The line of an instruction.
fn line(memory: &OwnMemory, layout: &Layout, code: &[u8; CODE_READ], address: i64) -> u32 {
    const PIECE: usize = 192;
    let (object, layout) = (layout.object, &layout.code);
    let table = word(code, layout.lines);
    let Some(head) = memory.read_least::<BYTES_HEAD_READ>(table, object.bytes_head) else { return 0 };
    let (mut at, mut left) = (table.wrapping_add(object.bytes_head), word(&head, object.size));
    let (mut piece, mut len, mut next) = ([0; PIECE], 0, 0);
    line_at(layout.table, number(code, layout.first_line), address, || {
        if next == len {
            let wanted = piece.get_mut(..left.min(PIECE))?;
            len = memory.read(at, wanted);
            at = at.wrapping_add(len);
            left -= len;
            next = 0;
        }
        let byte = *piece.get(..len)?.get(next)?;
        next += 1;
        Some(byte)
    })
}

/// Writes a `str` as UTF-8: its beginning or its end, when it is longer than what is kept. What is none is `?`.
fn text<const KEPT: usize>(memory: &OwnMemory, python: &Python, at: usize, end: bool, output: &mut Output<'_>) -> bool {
    let object = python.layout.object;
    let Some(head) = memory.read_least::<TEXT_HEAD_READ>(at, object.text_state + 8) else { return output.push(b"?") };
    let (length, state) = (word(&head, object.size), word(&head, object.text_state) >> object.text_bits);
    let bits = |bits: TextBits| (state >> bits.shift) & bits.mask;
    if word(&head, object.kind) != python.text_type || bits(COMPACT) == 0 || length > isize::MAX as usize {
        return output.push(b"?");
    }
    let is_ascii = bits(ASCII) == 1;
    let (width, start) = match bits(KIND) {
        width @ (1 | 2 | 4) => (width, at.wrapping_add(object.text[usize::from(!is_ascii)])),
        _ => return output.push(b"?"),
    };
    // A character that takes one, two or four bytes takes at most two, three or four as UTF-8.
    let most = match width {
        1 if is_ascii => KEPT,
        1 => KEPT / 2,
        2 => KEPT / 3,
        _ => KEPT / 4,
    };
    let kept = length.min(most);
    let from = start.wrapping_add(if end { (length - kept).saturating_mul(width) } else { 0 });
    let mut bytes = [0; FILE_KEPT];
    let Some(wanted) = bytes.get_mut(..kept * width) else { return output.push(b"?") };
    if memory.read(from, wanted) != wanted.len() {
        return output.push(b"?");
    }
    if is_ascii {
        return output.push(wanted);
    }
    wanted.chunks_exact(width).all(|unit| {
        let mut code = [0; 4];
        code.iter_mut().zip(unit).for_each(|(place, byte)| *place = *byte);
        let character = char::from_u32(u32::from_le_bytes(code)).unwrap_or(char::REPLACEMENT_CHARACTER);
        output.push(character.encode_utf8(&mut [0; 4]).as_bytes())
    })
}

/// A few bits of a `str`'s state, behind where they begin.
#[derive(Clone, Copy)]
struct TextBits {
    shift: u32,
    mask: usize,
}

const KIND: TextBits = TextBits { shift: 0, mask: 7 };
const COMPACT: TextBits = TextBits { shift: 3, mask: 1 };
const ASCII: TextBits = TextBits { shift: 4, mask: 1 };

/// The numbers in a structure, 0 where it ends before them; a test says that none does.
fn word<const BYTES: usize>(bytes: &[u8; BYTES], at: usize) -> usize {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.copied().map_or(0, usize::from_ne_bytes)
}

fn number<const BYTES: usize>(bytes: &[u8; BYTES], at: usize) -> i32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.copied().map_or(0, i32::from_ne_bytes)
}

fn byte<const BYTES: usize>(bytes: &[u8; BYTES], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}
