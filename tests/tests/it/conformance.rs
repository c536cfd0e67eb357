// SPDX-License-Identifier: MIT OR Apache-2.0

use tests::conformance::runner::{Options, run, with_deep_stack};
use tests::conformance::target::Launch;
use tests::server;

#[test]
fn the_reference_machine_passes_every_case() {
    let program = server::program().to_str().expect("path of qmp-server is text");
    let arguments =
        ["serve", "--name", "confvm", "--paused", "--listen", "unix:{sock}", "--listen"];
    let command = [program].into_iter().chain(arguments).chain(["unix:{pretty},pretty=on"]);
    let options = Options {
        deviations: vec![Options::own_deviations()],
        step_limit: server::LIMIT,
        patience: server::LIMIT,
        ..Options::new(Launch::Spawn(command.map(str::to_owned).collect()))
    };
    let mut report = Vec::new();
    let summary = with_deep_stack(|| run(&options, &mut report)).expect("the cases can be run");
    assert!(summary.failures.is_empty(), "{}", String::from_utf8_lossy(&report));
    assert!(summary.total.passed > 700, "only {} cases were run", summary.total.passed);
}
