//! Tells the compiler which Python it builds for (`Py_GIL_DISABLED`), and gives what links libpython (the plain executable, the unit tests) its run path. The Python extension does not link
//! it: the interpreter that loads the extension brings its own.

fn main() {
    println!("cargo:rerun-if-env-changed=PYO3_BUILD_EXTENSION_MODULE");
    pyo3_build_config::use_pyo3_cfgs();
    let python = pyo3_build_config::get();
    // An embedded interpreter finds its library by the name of the program that it would be.
    println!("cargo:rustc-env=RWSGI_PYTHON={}", python.executable().unwrap_or("python3"));
    let extension = std::env::var_os("PYO3_BUILD_EXTENSION_MODULE").is_some();
    if let (false, true, Some(dir)) = (extension, python.shared(), python.lib_dir()) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
    }
}
