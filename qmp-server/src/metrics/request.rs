// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked over HTTP, and what is answered.

use httparse::{EMPTY_HEADER, Status};

use crate::steps;

/// No request that anybody needs is longer, or has more headers.
pub(super) const LONGEST: usize = 8 << 10;
const MOST_HEADERS: usize = 64;

const PATH: &str = "/metrics";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// The figures, or only what would be in front of them.
    Figures { with_body: bool },
    /// Something else, to which this is the whole response.
    Refused(String),
}

impl Requested {
    /// The whole response, with these figures.
    pub(super) fn response(self, figures: &str) -> String {
        match self {
            Requested::Refused(response) => response,
            Requested::Figures { with_body } => {
                let mut response =
                    head("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", figures.len());
                if with_body {
                    response.push_str(figures);
                }
                response
            }
        }
    }
}

/// A request of which more may come.
///
/// It is parsed from its beginning each time. Whatever the pieces in which it comes, that takes time in proportion to its
/// length: it is parsed when it is twice as long as before, and when it may be complete.
#[derive(Default)]
pub(super) struct Incoming {
    received: Vec<u8>,
    /// How long it was when it was last parsed.
    parsed: usize,
    /// How many line ends precede the request.
    start: usize,
    /// After its start came an empty line, which ends the request or is a mistake: there is no second one.
    may_be_complete: bool,
}

impl Incoming {
    /// How much more is taken.
    pub(super) fn room(&self) -> usize {
        LONGEST - self.received.len()
    }

    pub(super) fn add(&mut self, more: &[u8]) {
        let searched = self.received.len().saturating_sub(2);
        self.received.extend_from_slice(more);
        let line_ends =
            self.received[self.start..].iter().take_while(|byte| b"\r\n".contains(byte));
        self.start += line_ends.count();
        let new = &self.received[searched.max(self.start)..];
        let is_empty_line = |line: &[u8]| line.starts_with(b"\n\n") || line == b"\n\r\n";
        self.may_be_complete |=
            (0..new.len()).any(|at| is_empty_line(&new[at..new.len().min(at + 3)]));
        steps::count(new.len());
    }

    /// As [`asked`], of what has come so far.
    pub(super) fn asked(&mut self) -> Option<Requested> {
        let is_much_longer = self.received.len() >= 2 * self.parsed;
        if !is_much_longer && !self.may_be_complete && self.room() > 0 {
            return None;
        }
        steps::count(self.received.len());
        self.parsed = self.received.len();
        asked(&self.received)
    }
}

/// Responds to a request in these pieces, without figures.
#[cfg(feature = "fuzzing")]
pub(crate) fn response_to<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Option<String> {
    let mut incoming = Incoming::default();
    pieces.into_iter().find_map(|piece| {
        incoming.add(&piece[..piece.len().min(incoming.room())]);
        incoming.asked().map(|asked| asked.response(""))
    })
}

/// What is asked for; `None` as long as the request is not complete.
fn asked(received: &[u8]) -> Option<Requested> {
    let refused = |status, headers| Some(Requested::Refused(failure(status, headers)));
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if received.len() < LONGEST => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refused("431 Request Header Fields Too Large", "");
        }
        Err(_) => return refused("400 Bad Request", ""),
    }
    let method = request.method.unwrap_or_default();
    if !matches!(method, "GET" | "HEAD") {
        return refused("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
    }
    if path(request.path.unwrap_or_default()) != PATH {
        return refused("404 Not Found", "");
    }
    Some(Requested::Figures { with_body: method == "GET" })
}

/// Without what is in front of it for proxies, and the query behind it.
fn path(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    path.split('?').next().unwrap_or_default()
}

fn failure(status: &str, headers: &str) -> String {
    let body = format!("{status}; there is {PATH}\n");
    head(status, "text/plain; charset=utf-8", headers, body.len()) + &body
}

fn head(status: &str, content_type: &str, headers: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         {headers}Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, status: &str, body: &str) {
        let response = asked(request.as_bytes()).unwrap().response("a 1\n");
        let (head, got) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert_eq!(got, body);
    }

    #[test]
    fn metrics_are_got() {
        for target in ["/metrics", "/metrics?a=b", "http://host:1/metrics"] {
            check(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), "200 OK", "a 1\n");
        }
        check("GET /metrics HTTP/1.0\r\n\r\n", "200 OK", "a 1\n");
        check("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", "");
    }

    #[test]
    fn everything_else_is_refused() {
        let missing = "404 Not Found; there is /metrics\n";
        for target in ["/", "/metrics/", "//metrics", "http://metrics", "*"] {
            check(&format!("GET {target} HTTP/1.1\r\n\r\n"), "404", missing);
        }
        let method = "405 Method Not Allowed; there is /metrics\n";
        check("POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405", method);
        let bad = "400 Bad Request; there is /metrics\n";
        for rubbish in ["{\"execute\": \"quit\"}\r\n", "GET /metrics HTTP/9.9\r\n\r\n", "\0"] {
            check(rubbish, "400", bad);
        }
        let large = "431 Request Header Fields Too Large; there is /metrics\n";
        check(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(LONGEST)), "431", large);
        check(&format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(MOST_HEADERS + 1)), "431", large);
    }

    #[test]
    fn a_request_may_come_in_pieces() {
        for before in ["", "\r\n", "\n\n\n"] {
            let request = format!("{before}GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            for size in 1..request.len() {
                let mut incoming = Incoming::default();
                let mut pieces = request.as_bytes().chunks(size).peekable();
                while let Some(piece) = pieces.next() {
                    incoming.add(piece);
                    assert_eq!(incoming.asked().is_some(), pieces.peek().is_none(), "{size}");
                }
            }
        }
    }

    #[test]
    fn pieces_take_no_more_steps_than_the_whole() {
        let lines = "GET / HTTP/1.1\r\n";
        for (before, piece) in [
            ("", "x"),
            ("", "\r"),
            ("", "\n"),
            ("", "\r\n"),
            ("", lines),
            (lines, "a: b\r\n"),
            ("\n\n", "x"),
        ] {
            let mut incoming = Incoming::default();
            let ((), steps) = steps::during(|| {
                for byte in before.bytes() {
                    incoming.add(&[byte]);
                    assert_eq!(incoming.asked(), None);
                }
                while incoming.room() >= piece.len() {
                    incoming.add(piece.as_bytes());
                    if incoming.asked().is_some() {
                        break;
                    }
                }
            });
            assert!(steps <= 6 * LONGEST as u64, "{before:?} {piece:?}: {steps}");
        }
    }

    #[test]
    fn what_is_not_complete_waits() {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        for length in 0..request.len() {
            assert_eq!(asked(&request.as_bytes()[..length]), None);
        }
    }
}
