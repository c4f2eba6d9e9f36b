//! The plain executable: the same server as the Python package's, with Python embedded.

use rwsgi::Launcher;

fn main() {
    let arguments: Vec<_> = std::env::args_os().collect();
    // The kernel's name for this very file, even when it was replaced or deleted since.
    let launcher = Launcher::new("/proc/self/exe".into(), Vec::new());
    std::process::exit(rwsgi::run(arguments, launcher));
}
