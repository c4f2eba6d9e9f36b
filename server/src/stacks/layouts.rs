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
    /// The thread state's pointer to the innermost frame.
    pub innermost: Innermost,
    /// A frame.
    pub frame: FrameLayout,
    /// A code object.
    pub code: CodeLayout,
    /// Size of a `str`'s head before its text: of ASCII alone, and of any other.
    pub text: [usize; 2],
    /// Size of `_PyRuntime`, in which the global lock lies.
    pub runtime: usize,
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
/// What of a code object is read, bytes.
pub(crate) const CODE_READ: usize = 208;

/// The layout of this version; `None` for one that is not known.
#[must_use]
pub(crate) fn of(major: u8, minor: u8) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| major == 3 && layout.minor == minor)
}

static LAYOUTS: [Layout; 5] = [
    Layout {
        minor: 9,
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
        text: [48, 72],
        runtime: 656,
    },
    Layout {
        minor: 10,
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
        text: [48, 72],
        runtime: 672,
    },
    Layout {
        minor: 11,
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
        text: [48, 72],
        runtime: 166688,
    },
    Layout {
        minor: 12,
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
        text: [40, 56],
        runtime: 459944,
    },
    Layout {
        minor: 13,
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
        text: [40, 56],
        runtime: 283320,
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
            };
            let owner = layout.frame.owner.as_ref().map_or(0, |owner| owner.at + 1);
            let ends = [layout.frame.code + 8, layout.frame.caller + 8, last, owner];
            assert!(ends.iter().all(|end| *end <= layout.frame.end) && layout.frame.end <= FRAME_READ);
            let code = &layout.code;
            let traceable = code.instructions.map_or(0, |(_, first)| first + 4);
            let ends = [code.first_line + 4, code.file + 8, code.name + 8, code.lines + 8, traceable];
            assert!(ends.iter().all(|end| *end <= code.end) && code.end <= CODE_READ, "3.{}", layout.minor);
        }
        assert!(of(3, 8).is_none() && of(4, 11).is_none() && of(3, 12).is_some());
    }
}
