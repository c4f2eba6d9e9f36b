//! What a thread was doing when a signal came: from the registers that the kernel has saved for it.

#![allow(unsafe_code)]

use nix::libc;

/// The system call that a thread was waiting in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its number; `None` when that cannot be told.
    pub number: Option<u32>,
    /// Its first arguments; the first of them is lost on some systems.
    pub arguments: [Option<usize>; 3],
    /// Registers that a function keeps over a call: what it waits for is in one, often.
    pub kept: [usize; 6],
}

/// The system call that the interrupted thread was waiting in; `None` when it was in none.
///
/// # Safety
/// `context` must be what a handler with `SA_SIGINFO` was given. `read` reads this process's memory.
#[must_use]
pub(crate) unsafe fn call(context: *const libc::c_void, read: impl Fn(usize, &mut [u8]) -> usize) -> Option<Call> {
    // SAFETY: the caller says that the kernel has made it.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    machine::call(context, read)
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{Call, libc};

    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    /// Bytes before the instruction in which its number is looked for.
    const BEFORE: usize = 24;

    /// A call that is made again after the handler has the program counter at its instruction, and its number in `rax`.
    /// Any other has the counter behind it: it has returned `EINTR`, or a thread that waits for a processor has what it
    /// waited for. Its number is in the code before, as compilers put it there.
    pub(super) fn call(context: &libc::ucontext_t, read: impl Fn(usize, &mut [u8]) -> usize) -> Option<Call> {
        let register = |register: libc::c_int| context.uc_mcontext.gregs[register as usize];
        let word = |number| register(number) as usize;
        let (at, result) = (word(libc::REG_RIP), register(libc::REG_RAX));
        let mut code = [0; 2];
        let is_call = |address: usize, code: &mut [u8; 2]| read(address, code) == 2 && *code == SYSCALL;
        let number = if (0..4096).contains(&result) && is_call(at, &mut code) {
            Some(result as u32)
        } else if is_call(at.wrapping_sub(2), &mut code) {
            let mut before = [0; BEFORE];
            let len = read(at.wrapping_sub(2 + BEFORE), &mut before);
            number_in(before.get(..len)?)
        } else {
            return None;
        };
        let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX].map(|number| Some(word(number)));
        let kept = [libc::REG_RBX, libc::REG_RBP, libc::REG_R12, libc::REG_R13, libc::REG_R14, libc::REG_R15].map(word);
        Some(Call { number, arguments, kept })
    }

    /// `mov $number, %eax`, the last one.
    pub(super) fn number_in(code: &[u8]) -> Option<u32> {
        let number = |bytes: &[u8]| match *bytes {
            [0xb8, low, high, 0, 0] => Some(u32::from(u16::from_le_bytes([low, high]))).filter(|number| *number < 600),
            _ => None,
        };
        code.windows(5).rev().find_map(number)
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{Call, libc};

    const SVC: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];

    /// The number stays in `x8`. Of a call that has returned the first argument is lost.
    pub(super) fn call(context: &libc::ucontext_t, read: impl Fn(usize, &mut [u8]) -> usize) -> Option<Call> {
        let registers = &context.uc_mcontext.regs;
        let at = context.uc_mcontext.pc as usize;
        let mut code = [0; 4];
        let is_call = |address: usize, code: &mut [u8; 4]| read(address, code) == 4 && *code == SVC;
        let first = if is_call(at, &mut code) {
            Some(registers[0] as usize)
        } else if is_call(at.wrapping_sub(4), &mut code) {
            None
        } else {
            return None;
        };
        let word = |number: usize| registers[number] as usize;
        Some(Call {
            number: u32::try_from(registers[8]).ok(),
            arguments: [first, Some(word(1)), Some(word(2))],
            kept: [19, 20, 21, 22, 23, 24].map(word),
        })
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod machine {
    use super::{Call, libc};

    pub(super) fn call(_: &libc::ucontext_t, _: impl Fn(usize, &mut [u8]) -> usize) -> Option<Call> {
        None
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::machine::number_in;

    #[test]
    fn the_number_of_a_call_is_in_the_code_before_it() {
        assert_eq!(number_in(&[0x90, 0xb8, 0xca, 0, 0, 0, 0x90]), Some(202));
        assert_eq!(number_in(&[0xb8, 7, 0, 0, 0, 0xb8, 1, 2, 3, 4]), Some(7));
        assert_eq!(number_in(&[0x31, 0xc0]), None);
    }
}
