//! The plain executable: the same server as the Python package's, with Python embedded.

fn main() {}
