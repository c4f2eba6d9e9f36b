//! Tells the compiler which Python it builds for (`Py_GIL_DISABLED`), and gives what links libpython (the plain executable, the
//! unit tests) its run path. The Python extension does not link it: the interpreter that loads the extension brings its own. Of
//! the extension, the linker learns which functions are to lie together, where it understands that.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    println!("cargo:rerun-if-env-changed=PYO3_BUILD_EXTENSION_MODULE");
    pyo3_build_config::use_pyo3_cfgs();
    let python = pyo3_build_config::get();
    // An embedded interpreter finds its library by the name of the program that it would be.
    println!("cargo:rustc-env=RWSGI_PYTHON={}", python.executable().unwrap_or("python3"));
    let extension = env::var_os("PYO3_BUILD_EXTENSION_MODULE").is_some();
    if let (false, true, Some(dir)) = (extension, python.shared(), python.lib_dir()) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
    }
    println!("cargo:rerun-if-changed=often.ld");
    let optimized = env::var("OPT_LEVEL").is_ok_and(|level| level != "0");
    if extension && optimized {
        let often = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("often.ld");
        if understands(&often) {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-T,{}", often.display());
        }
    }
}

/// Whether the linker takes this script: GNU ld and LLVM's do, gold and mold do not.
fn understands(script: &Path) -> bool {
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let same = env::var_os("HOST") == env::var_os("TARGET");
    let linker = env::var_os("RUSTC_LINKER").or_else(|| same.then(|| "cc".into()));
    // Flags may name another linker, in ways of which there are many.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let (Some(linker), false, Some(out)) = (linker, flags.contains("link"), env::var_os("OUT_DIR")) else {
        return false;
    };
    let mut option = std::ffi::OsString::from("-Wl,-T,");
    option.push(script);
    let mut probe = Command::new(linker);
    probe
        .args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"])
        .arg(Path::new(&out).join("probe.so"))
        .arg(option);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    !script.as_os_str().as_encoded_bytes().contains(&b',') && probe.status().is_ok_and(|status| status.success())
}
