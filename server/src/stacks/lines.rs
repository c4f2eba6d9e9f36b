//! The line of an instruction, from a code object's table of lines. Nothing here allocates: a signal handler calls it.

/// How CPython codes the lines of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineTable {
    /// 3.9, `co_lnotab`: pairs of increments.
    Increments,
    /// 3.10, PEP 626: pairs of a range's length and its line's increment.
    Ranges,
    /// From 3.11 on: entries of variable length, with columns.
    Locations,
}

/// No line belongs to a range.
const NO_LINE: i8 = -128;

/// The line of the instruction at `address` (bytes from the first one; negative before it). `bytes` gives the table's;
/// 0 when the instruction has no line, or the table ends before it.
pub(crate) fn line_at(table: LineTable, first_line: i32, address: i64, bytes: impl FnMut() -> Option<u8>) -> u32 {
    let line = match table {
        _ if address < 0 => Some(first_line.into()),
        LineTable::Increments => Some(increments(first_line.into(), address, bytes)),
        LineTable::Ranges => ranges(first_line.into(), address, bytes),
        LineTable::Locations => locations(first_line.into(), address, bytes),
    };
    line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0)
}

/// As `PyCode_Addr2Line` of 3.9.
fn increments(mut line: i64, address: i64, mut bytes: impl FnMut() -> Option<u8>) -> i64 {
    let mut at = 0_i64;
    while let (Some(forward), Some(lines)) = (bytes(), bytes()) {
        at += i64::from(forward);
        if at > address {
            break;
        }
        line += i64::from(lines as i8);
    }
    line
}

/// As `PyLineTable_NextAddressRange` of 3.10.
fn ranges(mut line: i64, address: i64, mut bytes: impl FnMut() -> Option<u8>) -> Option<i64> {
    let mut end = 0_i64;
    loop {
        let (length, lines) = (bytes()?, bytes()? as i8);
        if lines != NO_LINE {
            line += i64::from(lines);
        }
        end += i64::from(length);
        if address < end {
            return (lines != NO_LINE).then_some(line);
        }
    }
}

/// As `Objects/locations.md` of CPython has it.
fn locations(mut line: i64, address: i64, mut bytes: impl FnMut() -> Option<u8>) -> Option<i64> {
    let mut end = 0_i64;
    loop {
        let first = bytes()?;
        // Behind the last entry nothing begins in this way.
        if first & 0x80 == 0 {
            return None;
        }
        end += (i64::from(first & 7) + 1) * 2;
        let mut has_line = true;
        match (first >> 3) & 15 {
            15 => has_line = false,
            14 => {
                line += signed(&mut bytes)?;
                for _ in 0..3 {
                    varint(&mut bytes)?;
                }
            }
            13 => line += signed(&mut bytes)?,
            code @ 10..=12 => {
                line += i64::from(code) - 10;
                (bytes()?, bytes()?);
            }
            _ => drop(bytes()?),
        }
        if address < end {
            return has_line.then_some(line);
        }
    }
}

/// Six bits a byte, the lowest first.
fn varint(bytes: &mut impl FnMut() -> Option<u8>) -> Option<i64> {
    let mut value = 0_i64;
    for shift in (0..36).step_by(6) {
        let byte = bytes()?;
        value |= i64::from(byte & 63) << shift;
        if byte & 64 == 0 {
            return Some(value);
        }
    }
    None
}

fn signed(bytes: &mut impl FnMut() -> Option<u8>) -> Option<i64> {
    let value = varint(bytes)?;
    Some(if value & 1 == 1 { -(value >> 1) } else { value >> 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(table: LineTable, bytes: &[u8], address: i64) -> u32 {
        let mut bytes = bytes.iter().copied();
        line_at(table, 10, address, || bytes.next())
    }

    #[test]
    fn an_instruction_before_the_first_is_on_the_function_s_first_line() {
        for table in [LineTable::Increments, LineTable::Ranges, LineTable::Locations] {
            assert_eq!(line(table, &[], -1), 10);
        }
    }

    #[test]
    fn increments_go_forward_and_back() {
        // `def f(a):` of three lines, of which the second one continues on the third and comes back.
        let table = [0, 1, 8, 2, 4, 0xff, 255, 0, 5, 1];
        let lines = [0, 7, 8, 11, 12, 200, 271, 272].map(|at| line(LineTable::Increments, &table, at));
        assert_eq!(lines, [11, 11, 13, 13, 12, 12, 12, 13]);
    }

    #[test]
    fn a_range_may_have_no_line() {
        let table = [4, 1, 2, 0x80, 6, 0xfe];
        let lines = [0, 3, 4, 5, 6, 11, 12].map(|at| line(LineTable::Ranges, &table, at));
        assert_eq!(lines, [11, 11, 0, 0, 9, 9, 0]);
    }

    #[test]
    fn every_kind_of_location_is_passed_over() {
        let entry = |code: u8, units: u8| 0x80 | code << 3 | (units - 1);
        // A short one; one with a delta of 2; none; a long one that goes 3 back; one without columns, 40 forward.
        let table = [
            entry(3, 2),
            0x11,
            entry(12, 1),
            1,
            2,
            entry(15, 1),
            entry(14, 1),
            7,
            0x40,
            1,
            2,
            3,
            entry(13, 8),
            0x50,
            1,
        ];
        let lines = [0, 3, 4, 6, 8, 10, 25, 26].map(|at| line(LineTable::Locations, &table, at));
        assert_eq!(lines, [10, 10, 12, 0, 9, 49, 49, 0]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_some_line(bytes: Vec<u8>, address in -2_i64..5_000) {
            for table in [LineTable::Increments, LineTable::Ranges, LineTable::Locations] {
                let _ = line(table, &bytes, address);
            }
        }
    }
}
