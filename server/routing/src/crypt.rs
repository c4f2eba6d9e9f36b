//! `crypt(3)` of the system's library, which is loaded when it is first needed.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

use libloading::Library;

/// `char *crypt_rn(const char *phrase, const char *setting, void *data, int size)`
type CryptRn = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void, i32) -> *mut c_char;
/// `char *crypt_r(const char *phrase, const char *setting, struct crypt_data *data)`
type CryptR = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_void) -> *mut c_char;

enum Function {
    WithSize(CryptRn),
    Plain(CryptR),
}

/// `sizeof(struct crypt_data)` is 32768 in libxcrypt and 131232 in old glibc; in words, so that it is aligned.
const WORDS: usize = 140_000 / 8;

/// Where distributions have it; musl has it in its libc.
const LIBRARIES: [&str; 4] = ["libcrypt.so.1", "libcrypt.so.2", "libcrypt.so", "libc.so"];

/// The hash of a password by the method and the salt of `setting`; `None` when the system does not know the method, or
/// has no library for it.
pub(crate) fn crypt(password: &[u8], setting: &[u8]) -> Option<Vec<u8>> {
    static FUNCTION: OnceLock<Option<Function>> = OnceLock::new();
    let function = FUNCTION.get_or_init(load).as_ref()?;
    let (password, setting) = (CString::new(password).ok()?, CString::new(setting).ok()?);
    let mut data = vec![0_u64; WORDS];
    let memory: *mut c_void = data.as_mut_ptr().cast();
    // SAFETY: both texts end in NUL and live through the call; `memory` is zeroed, aligned and at least as large as
    // `struct crypt_data` of every library of the list. The result is null or a text inside of it.
    let hash = unsafe {
        let hash = match function {
            Function::WithSize(crypt) => crypt(password.as_ptr(), setting.as_ptr(), memory, (WORDS * 8) as i32),
            Function::Plain(crypt) => crypt(password.as_ptr(), setting.as_ptr(), memory),
        };
        if hash.is_null() {
            return None;
        }
        CStr::from_ptr(hash).to_bytes().to_vec()
    };
    // What begins with an asterisk says that it failed.
    (!hash.starts_with(b"*")).then_some(hash)
}

fn load() -> Option<Function> {
    LIBRARIES.iter().find_map(|name| {
        // SAFETY: the library is the system's, whose initializers do nothing to us; it is never unloaded, so that the
        // functions stay. Their types are those of crypt.h.
        unsafe {
            let library = Box::leak(Box::new(Library::new(*name).ok()?));
            if let Ok(found) = library.get::<CryptRn>(b"crypt_rn\0") {
                return Some(Function::WithSize(*found));
            }
            library.get::<CryptR>(b"crypt_r\0").ok().map(|found| Function::Plain(*found))
        }
    })
}
