// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask conformance`: the runner of the crate `tests`, by default on our server.

use crate::command::{Outcome, cargo, hand_over, run as run_command};
use crate::workspace::{PROGRAM, release_server, root};

/// Options that select a server, or that need none.
const OTHER_SERVERS: [&str; 7] =
    ["--connect", "--spawn", "--ours", "--list", "--categories", "--help", "-h"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let ours = !names_a_server(arguments);
    if ours {
        run_command(&mut cargo(["build", "--release", "--package", PROGRAM]))?;
    }
    hand_over("conformance", &[], |runner| {
        if ours {
            runner.arg("--ours").arg(release_server()).arg("--deviations");
            runner.arg(root().join("tests/conformance/deviations.jsonl"));
        }
        runner.args(arguments);
    })
}

fn names_a_server(arguments: &[String]) -> bool {
    arguments
        .iter()
        .any(|argument| OTHER_SERVERS.contains(&argument.split('=').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_server_is_meant_unless_another_is_named() {
        let named = |arguments: &[&str]| {
            names_a_server(&arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
        };
        assert!(!named(&[]));
        assert!(!named(&["--only", "oob/*", "-v", "--over", "tls"]));
        assert!(named(&["-v", "--connect", "unix:qmp.sock"]));
        assert!(named(&["--connect=unix:qmp.sock"]));
        assert!(named(&["--help"]));
        assert!(named(&["--categories", "--dialect", "10.0"]));
    }
}
