// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask conformance`: the runner of the crate `tests`, on our server unless told otherwise.

use crate::command::{Outcome, cargo, run as run_command};
use crate::workspace::{PROGRAM, release_server, root};

/// Options that say which server is meant, or that ask for none.
const OTHER_SERVERS: [&str; 5] = ["--connect", "--spawn", "--ours", "--help", "-h"];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut runner = cargo(["run", "--quiet", "--package", "tests", "--bin", "conformance", "--"]);
    if !names_a_server(arguments) {
        run_command(&mut cargo(["build", "--release", "--package", PROGRAM]))?;
        runner.arg("--ours").arg(release_server()).arg("--deviations");
        runner.arg(root().join("tests/conformance/deviations.jsonl"));
    }
    run_command(runner.args(arguments))
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
    }
}
