// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux at standard input and output, where no byte may be lost however soon the client ends its input.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;

use crate::json::Json;
use crate::process::{Process, run};
use crate::server::{LIMIT, qmp_server};
use crate::upstream::{Program, SOCKET};

/// Commands of each conversation, besides one whose answer is longer than what a pipe takes.
const COMMANDS: usize = 20;

/// Holds this number of conversations for each thing that `--upstream-lost` may be, one mux each, in front of the
/// storage daemon of this release. Returns how many there were; none if the calling test is to be skipped.
///
/// # Panics
///
/// If a byte is missing or one too many comes, or if a mux does not end with success.
#[must_use]
pub fn converse(dialect: Dialect, conversations: usize) -> usize {
    let Some(words) = Program::StorageDaemon.command_of(dialect, SOCKET) else { return 0 };
    let dir = tempfile::Builder::new().prefix("qmp-stdio-").tempdir().expect("a directory");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let _upstream = Process::start(&mut command).expect("the program starts");
    let mut expected = None;
    let mut held = 0;
    for conversation in 0..conversations {
        for what in ["disconnect", "keep", "exit"] {
            let said = hold(dir.path(), what, conversation % 2 == 0);
            check(&said);
            assert_eq!(&said, expected.get_or_insert_with(|| said.clone()), "{what}");
            held += 1;
        }
    }
    held
}

/// Returns what a client gets that has said everything before it reads: through pipes, or from one file and into another.
fn hold(dir: &Path, what: &str, pipes: bool) -> String {
    let mut command = qmp_server(["mux", "--upstream", &format!("unix:{SOCKET}")]);
    command.args(["--listen", "stdio", "--upstream-lost", what]).current_dir(dir);
    let short = (0..COMMANDS).map(|id| format!("{{'execute': 'query-version', 'id': {id}}}"));
    let input = format!(
        "{{'execute': 'qmp_capabilities'}}{}{{'execute': 'query-qmp-schema', 'id': 'last'}}",
        short.collect::<String>()
    );
    if !pipes {
        let finished = run(&mut command, &input, LIMIT).expect("the mux ends");
        assert!(finished.status.success(), "{finished:?}");
        return finished.stdout;
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut mux = Process::start(&mut command).expect("the mux starts");
    let mut stdin = mux.child().stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("a pipe takes this much");
    drop(stdin);
    let mut said = String::new();
    let stdout = mux.child().stdout.take();
    stdout.expect("a pipe").read_to_string(&mut said).expect("text comes");
    let status = mux.wait(LIMIT).expect("it can be waited for");
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", mux.stderr());
    said
}

fn check(said: &str) {
    let lines: Vec<_> = said.split_inclusive("\r\n").collect();
    assert_eq!(lines.len(), 2 + COMMANDS + 1, "{said}");
    assert!(lines[0].starts_with(r#"{"QMP""#) && lines[1] == "{\"return\": {}}\r\n", "{said}");
    let ids = (0..COMMANDS).map(|id| id.to_string()).chain(["\"last\"".to_owned()]);
    for (line, id) in lines[2..].iter().zip(ids) {
        assert!(Json::parse(line.trim_end()).is_ok(), "{line}");
        assert!(line.ends_with(&format!("\"id\": {id}}}\r\n")), "{line}");
    }
    assert!(said.len() > 1 << 16, "{} bytes fit into a pipe", said.len());
}
