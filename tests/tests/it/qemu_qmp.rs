// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's own Python client and its shell.

use std::process::Command;

use tests::json::Json;
use tests::process::{Finished, run};
use tests::programs::find_python;
use tests::server::{LIMIT, Server};

#[track_caller]
fn run_to_success(command: &mut Command, input: &str) -> Finished {
    let finished = run(command, input, LIMIT).unwrap_or_else(|error| panic!("{error}"));
    assert!(finished.status.success(), "{command:?}: {finished:#?}");
    finished
}

#[test]
fn the_python_client_finds_a_qemu() {
    let Some(python) = find_python("python") else { return };
    let server = Server::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/qmp_client.py");
    run_to_success(Command::new(python).arg(script).arg(server.socket()), "");
}

#[test]
fn the_shell_can_be_scripted() {
    let Some(shell) = find_python("qmp-shell") else { return };
    let server = Server::start();
    let input = "query-name\nno-such-command\ncont\n\nwatchdog-set-action action=pause\nstop\nquery-status\n";
    // The shell writes a history file into the home directory.
    let finished =
        run_to_success(Command::new(shell).arg(server.socket()).env("HOME", server.dir()), input);
    let replies: Vec<_> =
        finished.stdout.lines().filter_map(|line| line.split_once("(QEMU) ")?.1.into()).collect();
    let texts: Vec<_> =
        replies.iter().map(|reply| Json::parse(reply).map(|value| value.to_string())).collect();
    let returned = r#"{"return": {}}"#;
    assert_eq!(texts[0].as_deref(), Ok(r#"{"return": {"name": "confvm"}}"#), "{finished:#?}");
    let refusal = "The command no-such-command has not been found";
    assert!(
        texts[1]
            .as_ref()
            .is_ok_and(|text| text.contains("CommandNotFound") && text.contains(refusal))
    );
    assert_eq!(texts[2].as_deref(), Ok(returned));
    assert!(replies[3].contains("RESUME"), "{finished:#?}");
    assert_eq!(texts[4].as_deref(), Ok(returned));
    assert_eq!(texts[5].as_deref(), Ok(returned));
    assert!(
        texts[6].as_ref().is_ok_and(|text| text.contains(r#""status": "paused""#)),
        "{finished:#?}"
    );
}
