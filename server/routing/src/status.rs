//! The reasons of status codes, as uWSGI writes them.

const REASONS: [(u16, &str); 49] = [
    (100, "Continue"),
    (101, "Switching Protocols"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (203, "Non-Authoritative Information"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (305, "Use Proxy"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Request Entity Too Large"),
    (414, "Request-URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Requested Range Not Satisfiable"),
    (417, "Expectation Failed"),
    (418, "I'm a teapot"),
    (422, "Unprocessable Entity"),
    (425, "Too Early"),
    (426, "Upgrade Required"),
    (428, "Precondition Required"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (451, "Unavailable For Legal Reasons"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
];

/// The reason of a status code, if it has one.
#[must_use]
pub fn reason(code: u16) -> Option<&'static str> {
    REASONS.binary_search_by_key(&code, |(known, _)| *known).ok().map(|index| REASONS[index].1)
}

/// The code of a status line's text; 0 when there is none.
pub(crate) fn code(status: &[u8]) -> u16 {
    status.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).unwrap_or(0)
}

/// A status line's text of what a rule says: a code alone gets its reason.
pub(crate) fn complete(status: &[u8]) -> Vec<u8> {
    let code = status.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
    match (status.len(), code.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok())) {
        (3 | 4, Some(code)) => format!("{code} {}", reason(code).unwrap_or("Unknown")).into_bytes(),
        _ => status.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_gets_its_reason() {
        assert!(REASONS.is_sorted());
        assert_eq!(complete(b"404"), b"404 Not Found");
        assert_eq!(complete(b"299"), b"299 Unknown");
        assert_eq!(complete(b"404 Gone Fishing"), b"404 Gone Fishing");
    }
}
