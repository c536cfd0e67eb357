// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of `qmp-server` for any input: of the audit, roles, addresses, configuration files, certificates, requests
//! for metrics, and the names of descriptors behind a mux.
//!
//! Work is to be in proportion to the input. Where the library counts its steps, these are held against its length; else
//! all that is allocated, which is at least looked at when it is filled.

use qmp_proto::{Bands, Error, Object, Reader, Request, Value};
use qmp_server::fuzzing::{audited, certificate_names, metrics_response, renamed, steps_during};
use qmp_server::{Address, Listen, Role, Subject};

/// Pieces of URLs, options, headers, command lines and JSON.
#[rustfmt::skip]
pub(crate) const AUDIT_WORDS: &[&str] = &[
    "a", "bob", "=", ":", "@", ",", ",,", ";", "&", "?", "%", "%41", "://", "http://", "iscsi://", "ssh:/", "rbd:", "json:",
    "{", "}", "[", "]", "'", "\"", "\\", "\\\"", " ", "\t", "\n", "key=", "password=", "'password':", "\"key\": ",
    "file.key-secret=", "secret,", "data=", "exec:", "-cmd:", "--token ", "Bearer ", "Authorization: ", "-----BEGIN ",
    "set_password", "info ", "/", ".", "0", "é", "\u{1F600}", "***", "id=s",
];

/// Names, patterns and subjects of roles.
#[rustfmt::skip]
pub(super) const ROLE_WORDS: &[&str] = &[
    "*", "?", "a", "b", "query-", "query-*", "object-add", "x-", "_", ".", "\n", "user:", "group:", "dns:", "uri:", "cn:",
    "name:", "0", "root", "é", " ", "=", "://",
];

/// Pieces of addresses and their options.
#[rustfmt::skip]
pub(super) const ADDRESS_WORDS: &[&str] = &[
    "unix:", "unix-abstract:", "@", "tcp:", "tls:", "vsock:", "fd:", "systemd", "stdio", ":", "[::1]", "]", "[", "0", "4444",
    "65536", "-1", "any", "localhost", "/run/qmp.sock", ",", ",,", "=", "pretty=on", ",mode=0660", ",owner=root",
    ",server=on,wait=off", ",cert=a", ",key=b", ",client-ca=c", ",allow-name=d", ",role=admin", ",insecure=off",
    ",abstract=on", "é", "\n", " ",
];

/// Pieces of configuration files.
#[rustfmt::skip]
pub(super) const CONFIGURATION_WORDS: &[&str] = &[
    "listen", "address", "mode", "pretty", "allow-name", "cert", "key", "client-ca", "role", " = ", "'", "\"", "'''", "[",
    "]", "[[", "]]", "{", "}", ",", "\n", "true", "1", "0660", "'unix:a'", "'tls:h:1,cert=a,key=b'", "[[listen]]\n",
    "address = 'unix:a'\n", "mode = '0600'\n", "x.y.z = ", "#", "\\u0041", "é", "1e9", "1979-05-27", "inf",
];

/// Pieces of requests for metrics.
#[rustfmt::skip]
pub(super) const HTTP_WORDS: &[&str] = &[
    "GET ", "HEAD ", "POST ", "/metrics", "/", "?a=b", "http://h", " HTTP/1.1", " HTTP/1.0", "\r\n", "\r", "\n", "\r\n\r\n", "\n\n",
    "Host: x\r\n", "a: b\r\n", ": ", " ", "\t", "\0", "%", "\u{e9}", "x", "GET /metrics HTTP/1.1\r\n",
];

/// Pieces of arguments that refer to descriptors by name.
#[rustfmt::skip]
pub(super) const DESCRIPTOR_WORDS: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "'", "'tap0'", "'x/y'", "'a':", "1", "'fd':", "'fdname':", "'fds':", "'vhostfds':",
    "'tap0:tap1:1'", "'uri':", "'fd:tap0'", "'type':", "'fd'", "'data':", "'str':", "'/dev/fdname/tap0'", "/dev/fdname/",
    "tap0", "{'b':", "'property':", "'value':", "'path':", "{'fd':'tap0'}", "\n",
];

/// The most bytes of a line of the audit: arguments and descriptions are cut.
const LONGEST_LINE: usize = 64 << 10;

/// Checks that the steps are at most a constant number for each byte, and a few more.
#[track_caller]
fn check_steps(steps: u64, bytes: usize, most_each: u64) {
    let most = most_each * bytes as u64 + 20_000;
    assert!(steps <= most, "{steps} steps for {bytes} bytes");
}

/// A secret is not in the audit, whatever stands beside it.
pub(super) fn audit(input: &[u8]) {
    const SECRET: &str = "hunTER2-7c1f";
    let text = &*String::from_utf8_lossy(input);
    if text.contains(SECRET) {
        return;
    }
    let between = |before: &str, after: &str| format!("{before}{text}{SECRET}{after}");
    let cases = [
        ("x", Object::from_iter([("password", SECRET), ("x", text)])),
        ("x", Object::from_iter([("o", between("http://", "@h/x"))])),
        ("x", Object::from_iter([("o", between("json: ", ""))])),
        ("migrate", Object::from_iter([("uri", between("exec:sh ", ""))])),
        ("human-monitor-command", Object::from_iter([("command-line", between("x ", ""))])),
        ("change-vnc-password", Object::from_iter([(text, SECRET)])),
    ];
    for (number, (command, arguments)) in cases.into_iter().enumerate() {
        let size = arguments.to_string().len() + 2 * text.len();
        let mut request = Request::new(command);
        request.arguments = arguments;
        request.id = Some(text.into());
        let desc = if number == 0 { between("no 'hunTER2-7c1f' in ", "") } else { text.to_owned() };
        let line = check_audited(&request, desc, size);
        assert!(!line.contains(SECRET), "case {number}: {line}");
    }
    // The input may be requests itself.
    let (mut reader, mut input) = (Reader::default(), input);
    while let Some(message) = reader.read(&mut input) {
        let Ok(message) = message else { continue };
        if let Ok(request) = Request::parse(&message, Bands::Both) {
            let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
            let size = 2 * text.len();
            check_audited(&request, text, size);
        }
    }
}

fn check_audited(request: &Request, desc: String, size: usize) -> String {
    let (line, steps) = steps_during(|| audited(request, Error::generic(desc)));
    check_steps(steps, size, 1000);
    assert!(line.len() < LONGEST_LINE, "{} bytes", line.len());
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line:?}");
    line
}

/// The first lines are patterns, by turns allowed and denied, and a subject; each line is a name that is asked for.
pub(super) fn roles(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    let mut role = Role::new("r").expect("a name");
    // Patterns are an operator's, names a client's.
    let mut bytes_of_patterns = 0;
    for (number, pattern) in text.lines().take(4).enumerate() {
        let pattern: String = pattern.chars().take(20).collect();
        let is_allowed = number % 2 == 0;
        let added = if is_allowed { role.allow(&pattern) } else { role.deny(&pattern) };
        bytes_of_patterns += pattern.len();
        if added.is_ok() {
            let example = pattern.replace(['*', '?'], "x");
            let denied_before = number > 1;
            assert!(role.allows_command(&example) == is_allowed || denied_before, "{pattern}");
        }
    }
    for name in [text].into_iter().chain(text.lines()) {
        let (_, steps) = steps_during(|| (role.allows_command(name), role.allows_event(name)));
        check_steps(steps, name.len(), 8 + 2 * bytes_of_patterns as u64);
        assert!(!role.allows_event(name));
    }
    assert!(role.allows_command("qmp_capabilities"));
    if let Some(Ok(subject)) = text.lines().next().map(str::parse::<Subject>) {
        assert_eq!(subject.to_string().parse(), Ok(subject));
    }
}

/// An address is written as it is read.
pub(super) fn addresses(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    for text in [text].into_iter().chain(text.lines().take(10)) {
        let mut parsed = None;
        let mut steps = 0;
        let allocated = allocation_counter::measure(|| {
            let (result, counted) = steps_during(|| text.parse::<Listen>());
            (parsed, steps) = (Some(result), counted);
        });
        // Its characters are split, its options read, and a path is parsed again after `unix:`.
        check_steps(steps, text.len(), 6);
        // Two bytes can be an option without a name, for which there is a text, and a place in two lists that grow.
        let most = 128 * text.len() as u64 + 4096;
        assert!(allocated.bytes_total <= most, "{allocated:?} for {} bytes", text.len());
        if let Some(Err(error)) = parsed {
            assert!(error.to_string().len() <= 8 * text.len() + 400);
        }
        if let Ok(address) = text.parse::<Address>() {
            let written = address.to_string();
            assert_eq!(written.parse().as_ref(), Ok(&address), "{text}");
        }
    }
}

/// The listeners of a configuration file are as on the command line.
pub(super) fn configuration(input: &[u8]) {
    #[derive(serde::Deserialize)]
    struct Part {
        #[serde(default)]
        listen: Vec<Listen>,
    }
    let text = &*String::from_utf8_lossy(input);
    let mut parsed = None;
    let mut steps = 0;
    let allocated = allocation_counter::measure(|| {
        let (result, counted) = steps_during(|| toml::from_str::<Part>(text));
        (parsed, steps) = (Some(result), counted);
    });
    // Those of the listeners. The parser of TOML counts none, so what it allocates stands for them.
    check_steps(steps, text.len(), 6);
    let most = 4096 * text.len() as u64 + (1 << 16);
    assert!(allocated.bytes_total <= most, "{allocated:?} for {} bytes", text.len());
    for listen in parsed.and_then(Result::ok).into_iter().flat_map(|part| part.listen) {
        let address = listen.address.to_string().replace(',', ",,");
        let options = if listen.tls.is_some() { ",cert=a,key=b" } else { "" };
        let again = format!("{address}{options}").parse::<Listen>();
        assert_eq!(again.map(|again| again.address), Ok(listen.address));
    }
}

/// A request for metrics is understood the same however it is cut.
pub(super) fn metrics(input: &[u8]) {
    let whole = metrics_response([input]);
    for len in [1, 2 + input.len() % 13] {
        let (pieces, steps) = steps_during(|| metrics_response(input.chunks(len)));
        // Each byte is added, searched for an empty line together with the two before it, and parsed when there are twice as
        // many, and at the end.
        check_steps(steps, input.len(), 8);
        match (&pieces, &whole) {
            // The rest of what is refused may not have been looked at yet.
            (None, Some(whole)) => assert!(whole.starts_with("HTTP/1.1 4"), "{whole}"),
            _ => assert_eq!(pieces, whole, "{len} bytes at a time"),
        }
    }
}

/// Names in certificates are words that an operator could expect, and can print.
pub(super) fn certificates(input: &[u8]) {
    let certificates = split_certificates(input);
    let mut names = Vec::new();
    let allocated = allocation_counter::measure(|| names = certificate_names(&certificates));
    let most = 512 * input.len() as u64 + 4096;
    assert!(allocated.bytes_total <= most, "{allocated:?} for {} bytes", input.len());
    for name in names {
        let text = name.to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.len() <= certificates[0].len());
        // A rule for this very name can be written, unless it is empty.
        let subject: Result<Subject, _> = text.parse();
        assert!(subject.is_ok() || text.ends_with(':'), "{text:?}");
    }
}

/// Takes apart what certificates (DER) in a row are; the rest is one more.
fn split_certificates(input: &[u8]) -> Vec<&[u8]> {
    let mut certificates = Vec::new();
    let mut rest = input;
    while let &[0x30, 0x82, high, low, ..] = rest
        && let Some((certificate, after)) =
            rest.split_at_checked(4 + usize::from(u16::from_be_bytes([high, low])))
    {
        certificates.push(certificate);
        rest = after;
    }
    certificates.push(rest);
    certificates
}

/// The names of descriptors in arguments get the client's prefix, and nothing else changes.
pub(super) fn descriptors(mut input: &[u8]) {
    const PREFIX: &str = "Qz7-";
    const GIVEN: [&str; 4] = ["tap0", "tap1", "x/y", "a"];
    let mut reader = Reader::default();
    while let Some(message) = reader.read(&mut input) {
        let Ok(message) = message else { continue };
        let Ok(Value::Object(arguments)) = message.to_value() else { continue };
        let text = arguments.to_string();
        if text.contains(PREFIX) {
            continue;
        }
        let len = message.as_bytes().len();
        let command = if arguments.contains("property") { "qom-set" } else { "x" };
        let mut result = None;
        let mut steps = 0;
        let allocated = allocation_counter::measure(|| {
            (result, steps) = steps_during(|| renamed(PREFIX, &GIVEN, command, &arguments));
        });
        check_steps(steps, len, 8);
        let most = 400 * len as u64 + 4096;
        assert!(allocated.bytes_total <= most, "{allocated:?} for {len} bytes");
        let Some((renamed, names)) = result else { continue };
        assert!(!names.is_empty() && names.iter().all(|name| GIVEN.contains(&&**name)));
        assert_eq!(renamed.to_string().replace(PREFIX, ""), text);
    }
}

#[cfg(test)]
mod tests {
    use super::descriptors;

    #[test]
    fn names_deep_in_arguments_take_one_copy_of_them() {
        let (depth, text) = (900, "x".repeat(50_000));
        let inner = format!("{{'fd': 'tap0', 'x': '{text}'}}");
        descriptors(format!("{}{inner}{}", "{'a':".repeat(depth), "}".repeat(depth)).as_bytes());
    }
}
