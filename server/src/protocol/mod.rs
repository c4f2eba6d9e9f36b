//! Bytes to requests and back. Pure: no sockets, no Python, so that it is fuzzed and measured alone.
