//! Where CPython keeps what a stack is read from, by version: one table, from each version's headers.
//!
//! A minor version keeps these structures from its first release on. Builds with other options may not: so nothing is
//! read before [`super::check`] has compared a walk with what Python itself says.

use super::lines::LineTable;

/// The offsets of one minor version, bytes, on a 64-bit system.
#[derive(Debug)]
pub(crate) struct Layout {
    /// 3.`minor`.
    pub minor: u8,
    /// What every object begins with; [`FREE_THREADED`]'s and those after it are of builds without the global lock.
    pub object: &'static ObjectLayout,
    /// The thread state's pointer to the innermost frame.
    pub innermost: Innermost,
    /// A frame.
    pub frame: FrameLayout,
    /// A code object.
    pub code: CodeLayout,
    /// Size of `_PyRuntime`, in which the global lock lies.
    pub runtime: usize,
}

/// Where objects have what, bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ObjectLayout {
    /// Of every object: its type.
    pub kind: usize,
    /// Of those with a length: `bytes`, and the length of a `str` in the same place.
    pub size: usize,
    /// Before the bytes of a `bytes`.
    pub bytes_head: usize,
    /// Of a `str`: a word with a few bits.
    pub text_state: usize,
    /// Where they begin in that word: three for its width, one for "compact", one for ASCII.
    pub text_bits: u32,
    /// Size of a `str`'s head before its text: of ASCII alone, and of any other.
    pub text: [usize; 2],
}

/// How a thread state leads to its innermost frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Innermost {
    /// A pointer at this offset.
    At(usize),
    /// A pointer at the first offset, to what has a pointer to the frame at the second.
    Through(usize, usize),
}

/// A frame's offsets.
#[derive(Debug)]
pub(crate) struct FrameLayout {
    /// Its code object.
    pub code: usize,
    /// Bits of that pointer that are a tag.
    pub tag: usize,
    /// The frame that called it.
    pub caller: usize,
    /// Its last instruction.
    pub last: Last,
    /// Who owns it, one byte: not there in old versions.
    pub owner: Option<Owners>,
    /// As far as this it must be there.
    pub end: usize,
}

/// How a frame says which instruction it is at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Last {
    /// A number of this many bytes each, at this offset.
    Index(usize, i32),
    /// A pointer into the code, at this offset.
    Pointer(usize),
    /// A pointer into a copy of the code that is the thread's own.
    OfThread(ThreadCode),
}

/// Where the copy is. Each thread has a number, and a code object an array of copies, whose first is its own code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadCode {
    /// Of a frame: the pointer.
    pub pointer: usize,
    /// Of a frame: the number, four bytes.
    pub number: usize,
    /// Of a code object: the pointer to the array.
    pub array: usize,
    /// Of the array: the first pointer to a copy.
    pub first: usize,
}

/// Whose a frame is.
#[derive(Debug)]
pub(crate) struct Owners {
    /// Where that is said.
    pub at: usize,
    /// A generator's, which is whole from its first instruction on.
    pub generator: u8,
    /// From this value on it is the interpreter's own, and no function's.
    pub foreign: u8,
}

/// A code object's offsets.
#[derive(Debug)]
pub(crate) struct CodeLayout {
    /// Number of the first line.
    pub first_line: usize,
    /// The file.
    pub file: usize,
    /// The name that is shown: qualified, where there is that.
    pub name: usize,
    /// The table of lines.
    pub lines: usize,
    /// How that is coded.
    pub table: LineTable,
    /// The instructions, and the number of the first that may be traced: a frame before it is not whole yet.
    pub instructions: Option<(usize, usize)>,
    /// As far as this it must be there.
    pub end: usize,
}

/// What of a frame is read, bytes.
pub(crate) const FRAME_READ: usize = 112;
/// What of a `bytes` is read before its bytes, and of a `str` as far as its state, bytes.
pub(crate) const BYTES_HEAD_READ: usize = 48;
pub(crate) const TEXT_HEAD_READ: usize = 56;
/// What of a code object is read, bytes.
pub(crate) const CODE_READ: usize = 232;

/// The layout of this version, of a build with the global lock or without; `None` for one that is not known.
#[must_use]
pub(crate) fn of(major: u8, minor: u8, is_threaded_freely: bool) -> Option<&'static Layout> {
    let mut known = LAYOUTS.iter().filter(|layout| major == 3 && layout.minor == minor);
    known.find(|layout| (layout.object.kind != UNTIL_3_11.kind) == is_threaded_freely)
}

static UNTIL_3_11: ObjectLayout =
    ObjectLayout { kind: 8, size: 16, bytes_head: 32, text_state: 32, text_bits: 2, text: [48, 72] };
static FROM_3_12: ObjectLayout = ObjectLayout { text: [40, 56], ..UNTIL_3_11 };
/// An object has an owner, a mutex and two reference counts.
static FREE_THREADED: ObjectLayout =
    ObjectLayout { kind: 24, size: 32, bytes_head: 48, text_state: 48, text_bits: 2, text: [56, 72] };
static FREE_THREADED_FROM_3_14: ObjectLayout = ObjectLayout { text_bits: 8, ..FREE_THREADED };

static LAYOUTS: [Layout; 10] = [
    Layout {
        minor: 9,
        object: &UNTIL_3_11,
        innermost: Innermost::At(24),
        frame: FrameLayout { code: 32, tag: 0, caller: 24, last: Last::Index(104, 1), owner: None, end: 108 },
        code: CodeLayout {
            first_line: 40,
            file: 104,
            name: 112,
            lines: 120,
            table: LineTable::Increments,
            instructions: None,
            end: 128,
        },
        runtime: 656,
    },
    Layout {
        minor: 10,
        object: &UNTIL_3_11,
        innermost: Innermost::At(24),
        frame: FrameLayout { code: 32, tag: 0, caller: 24, last: Last::Index(96, 2), owner: None, end: 100 },
        code: CodeLayout {
            first_line: 40,
            file: 104,
            name: 112,
            lines: 120,
            table: LineTable::Ranges,
            instructions: None,
            end: 128,
        },
        runtime: 672,
    },
    Layout {
        minor: 11,
        object: &UNTIL_3_11,
        innermost: Innermost::Through(56, 8),
        frame: FrameLayout {
            code: 32,
            tag: 0,
            caller: 48,
            last: Last::Pointer(56),
            owner: Some(Owners { at: 69, generator: 1, foreign: 3 }),
            end: 70,
        },
        code: CodeLayout {
            first_line: 72,
            file: 112,
            name: 128,
            lines: 136,
            table: LineTable::Locations,
            instructions: Some((184, 168)),
            end: 184,
        },
        runtime: 166688,
    },
    Layout {
        minor: 12,
        object: &FROM_3_12,
        innermost: Innermost::Through(56, 0),
        frame: FrameLayout {
            code: 0,
            tag: 0,
            caller: 8,
            last: Last::Pointer(56),
            owner: Some(Owners { at: 70, generator: 1, foreign: 3 }),
            end: 71,
        },
        code: CodeLayout {
            first_line: 68,
            file: 112,
            name: 128,
            lines: 136,
            table: LineTable::Locations,
            instructions: Some((192, 176)),
            end: 192,
        },
        runtime: 459944,
    },
    Layout {
        minor: 13,
        object: &FROM_3_12,
        innermost: Innermost::At(72),
        frame: FrameLayout {
            code: 0,
            tag: 0,
            caller: 8,
            last: Last::Pointer(56),
            owner: Some(Owners { at: 70, generator: 1, foreign: 3 }),
            end: 71,
        },
        code: CodeLayout {
            first_line: 68,
            file: 112,
            name: 128,
            lines: 136,
            table: LineTable::Locations,
            instructions: Some((200, 184)),
            end: 200,
        },
        runtime: 283320,
    },
    Layout {
        minor: 14,
        object: &FROM_3_12,
        innermost: Innermost::At(72),
        frame: FrameLayout {
            code: 0,
            tag: 1,
            caller: 8,
            last: Last::Pointer(56),
            owner: Some(Owners { at: 74, generator: 1, foreign: 3 }),
            end: 75,
        },
        code: CodeLayout {
            first_line: 68,
            file: 112,
            name: 128,
            lines: 136,
            table: LineTable::Locations,
            instructions: Some((208, 192)),
            end: 196,
        },
        runtime: 316616,
    },
    Layout {
        minor: 15,
        object: &FROM_3_12,
        innermost: Innermost::At(72),
        frame: FrameLayout {
            code: 0,
            tag: 3,
            caller: 8,
            last: Last::Pointer(56),
            owner: Some(Owners { at: 74, generator: 1, foreign: 3 }),
            end: 75,
        },
        code: CodeLayout {
            first_line: 68,
            file: 112,
            name: 128,
            lines: 136,
            table: LineTable::Locations,
            instructions: Some((208, 192)),
            end: 196,
        },
        runtime: 346560,
    },
    Layout {
        minor: 13,
        object: &FREE_THREADED,
        innermost: Innermost::At(72),
        frame: FrameLayout {
            code: 0,
            tag: 0,
            caller: 8,
            last: Last::Pointer(56),
            owner: Some(Owners { at: 70, generator: 1, foreign: 3 }),
            end: 71,
        },
        code: CodeLayout {
            first_line: 84,
            file: 128,
            name: 144,
            lines: 152,
            table: LineTable::Locations,
            instructions: Some((216, 200)),
            end: 204,
        },
        runtime: 328384,
    },
    Layout {
        minor: 14,
        object: &FREE_THREADED_FROM_3_14,
        innermost: Innermost::At(72),
        frame: FrameLayout {
            code: 0,
            tag: 1,
            caller: 8,
            last: Last::OfThread(ThreadCode { pointer: 56, number: 72, array: 224, first: 8 }),
            owner: Some(Owners { at: 78, generator: 1, foreign: 3 }),
            end: 79,
        },
        code: CodeLayout {
            first_line: 84,
            file: 128,
            name: 144,
            lines: 152,
            table: LineTable::Locations,
            instructions: Some((232, 208)),
            end: 232,
        },
        runtime: 362368,
    },
    Layout {
        minor: 15,
        object: &FREE_THREADED_FROM_3_14,
        innermost: Innermost::At(72),
        frame: FrameLayout {
            code: 0,
            tag: 3,
            caller: 8,
            last: Last::OfThread(ThreadCode { pointer: 56, number: 72, array: 224, first: 8 }),
            owner: Some(Owners { at: 78, generator: 1, foreign: 3 }),
            end: 79,
        },
        code: CodeLayout {
            first_line: 84,
            file: 128,
            name: 144,
            lines: 152,
            table: LineTable::Locations,
            instructions: Some((232, 208)),
            end: 232,
        },
        runtime: 406016,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_there_of_a_structure_holds_all_its_offsets() {
        for layout in &LAYOUTS {
            let last = match layout.frame.last {
                Last::Index(at, _) => at + 4,
                Last::Pointer(at) => at + 8,
                Last::OfThread(of) => (of.pointer + 8).max(of.number + 4),
            };
            let owner = layout.frame.owner.as_ref().map_or(0, |owner| owner.at + 1);
            let ends = [layout.frame.code + 8, layout.frame.caller + 8, last, owner];
            assert!(ends.iter().all(|end| *end <= layout.frame.end) && layout.frame.end <= FRAME_READ);
            let code = &layout.code;
            let traceable = code.instructions.map_or(0, |(_, first)| first + 4);
            let array = if let Last::OfThread(of) = layout.frame.last { of.array + 8 } else { 0 };
            let ends = [code.first_line + 4, code.file + 8, code.name + 8, code.lines + 8, traceable, array];
            assert!(ends.iter().all(|end| *end <= code.end) && code.end <= CODE_READ, "3.{}", layout.minor);
        }
        assert!(of(3, 8, false).is_none() && of(4, 11, false).is_none() && of(3, 12, true).is_none());
        for (minor, is_threaded_freely) in [(12, false), (13, false), (13, true), (14, true), (15, false), (15, true)] {
            let layout = of(3, minor, is_threaded_freely).unwrap();
            assert_eq!((layout.minor, layout.object.kind == 24), (minor, is_threaded_freely));
            let object = layout.object;
            assert!(object.bytes_head <= BYTES_HEAD_READ && object.text_state + 8 <= TEXT_HEAD_READ);
        }
    }
}
