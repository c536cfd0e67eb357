// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recognises servers of other protocols by what they send in place of a greeting.

use std::fmt;

/// Bytes of a line that are kept to recognise and show it.
const HEAD: usize = 64;

/// The server does not speak QMP.
///
/// Displays with the beginning of what it sent, escaped and on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Foreign {
    /// What it speaks.
    pub protocol: Protocol,
    /// The first bytes of the line that is not QMP, escaped, at most 64 of them.
    pub excerpt: String,
}

/// A protocol other than QMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// QEMU's human monitor, which is a terminal for people.
    HumanMonitor,
    /// HTTP.
    Http,
    /// SSH.
    Ssh,
    /// Telnet.
    Telnet,
    /// TLS; the connection must be made with TLS.
    Tls,
    /// VNC (RFB).
    Vnc,
    /// JSON, but not messages of a QMP server.
    Json,
    /// Any other.
    Unknown,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::HumanMonitor => "QEMU's human monitor (HMP)",
            Protocol::Http => "HTTP",
            Protocol::Ssh => "SSH",
            Protocol::Telnet => "telnet",
            Protocol::Tls => "TLS",
            Protocol::Vnc => "VNC",
            Protocol::Json => "JSON, but not QMP",
            Protocol::Unknown => "an unknown protocol",
        })
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a QMP server: it speaks {}, and sent \"{}\"", self.protocol, self.excerpt)
    }
}

impl std::error::Error for Foreign {}

/// One thing that was read before the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A message of a QMP server.
    Message,
    /// An object or array that is not such a message.
    Value,
    /// Anything else.
    Garbage,
}

/// Distinguishes other protocols from what QEMU may send before its greeting: messages, and the *rest* of a
/// response whose beginning was read by an earlier client.
///
/// Looks at one line after the other. A message takes one line, or several if it is pretty-printed. So does
/// the rest of a response, and three things are never true of it: that a line ends unlike JSON; that a line
/// begins like another protocol; that its first line is, or ends, one object or array, unless the line is
/// indented. (The rest closes more brackets than it opens.)
#[derive(Debug, Default)]
pub(super) struct Preamble {
    /// The first bytes of the line, but for leading blanks.
    head: Vec<u8>,
    /// The line has leading blanks.
    indented: bool,
    /// The last bytes of the line that are not blank; zeros before those of a shorter line.
    tail: [u8; 5],
    /// What is in the line as a whole; `None` for nothing, or the beginning of a value.
    item: Option<Item>,
    /// An earlier line may have been the rest of a response.
    rest: bool,
    /// Bytes of all lines so far.
    bytes: usize,
    foreign: Option<Foreign>,
}

impl Preamble {
    /// Takes the bytes that have been read.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
                continue;
            }
            let blank = matches!(byte, b' ' | b'\t' | b'\r');
            if blank && self.head.is_empty() {
                self.indented = true;
            } else if self.head.len() < HEAD {
                self.head.push(byte);
            }
            if !blank {
                self.tail.rotate_left(1);
                self.tail[4] = byte;
            }
        }
    }

    /// Takes what has been found in these bytes.
    pub(super) fn add(&mut self, item: Item) {
        self.item = Some(match (self.item, item) {
            (None, item) => item,
            (Some(Item::Message), _) | (_, Item::Message) => Item::Message,
            _ => Item::Garbage,
        });
    }

    fn end_line(&mut self) {
        let foreign = match self.item {
            None | Some(Item::Message) => false,
            Some(Item::Value) if !self.rest && !self.indented => true,
            Some(_) => opening(&self.head).is_some() || !ends_as_json(&self.tail),
        };
        if foreign {
            self.foreign = self.foreign.take().or_else(|| Some(self.describe()));
        }
        self.rest |= matches!(self.item, Some(Item::Value | Item::Garbage));
        self.head.clear();
        self.indented = false;
        self.tail = [0; 5];
        self.item = None;
    }

    /// Returns why there will be no greeting. A server may send `limit` bytes before it.
    pub(super) fn verdict(&mut self, limit: usize) -> Option<Foreign> {
        let endless = self.bytes > limit;
        self.foreign.take().or_else(|| endless.then(|| self.describe()))
    }

    /// Returns what the current line looks like so far.
    pub(super) fn suspect(&self) -> Option<Foreign> {
        self.item.is_some_and(|item| item != Item::Message).then(|| self.describe())
    }

    fn describe(&self) -> Foreign {
        let protocol = match (recognise(&self.head), self.item) {
            (Protocol::Unknown, Some(Item::Value)) => Protocol::Json,
            (protocol, _) => protocol,
        };
        Foreign { protocol, excerpt: self.head.trim_ascii_end().escape_ascii().to_string() }
    }
}

/// Returns `true` if a line of JSON can end like this.
fn ends_as_json(tail: &[u8; 5]) -> bool {
    matches!(tail[4], b'{' | b'}' | b'[' | b']' | b',' | b'"' | b'0'..=b'9')
        || [&b"true"[..], b"false", b"null"].iter().any(|word| tail.ends_with(word))
}

fn recognise(line: &[u8]) -> Protocol {
    let has = |part: &[u8]| line.windows(part.len()).any(|window| window == part);
    match opening(line) {
        // The human monitor can be configured with telnet around it.
        Some(Protocol::Telnet) | None if has(b"(qemu)") || has(b"QEMU ") && has(b" monitor") => {
            Protocol::HumanMonitor
        }
        protocol => protocol.unwrap_or(Protocol::Unknown),
    }
}

/// Returns the protocol whose servers begin like this.
fn opening(line: &[u8]) -> Option<Protocol> {
    match line {
        [0x15 | 0x16, 0x03, ..] => Some(Protocol::Tls),
        [0xFF, 0xFB..=0xFE, ..] => Some(Protocol::Telnet),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Protocol::Http),
        [b'S', b'S', b'H', b'-', ..] => Some(Protocol::Ssh),
        [b'R', b'F', b'B', b' ', ..] => Some(Protocol::Vnc),
        _ => None,
    }
}
