// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask help`.

use crate::command::Outcome;

const TEXT: &str = "\
cargo xtask TASK

    test                          install what the tests need, then check and test everything
    tidy                          check the rules of the workspace that no compiler knows
    conformance [OPTION]...       hold our server against the recorded cases
    conformance --connect ADDRESS [OPTION]...
                                  hold another server against them; --help lists the options, docs/conformance.md says more
    oracles                       unpack QEMU 10.0 and 11.1 into the target directory, and print where their programs are
    bench [all] [--quick] [--out DIR] [--compare OLD.json]
                                  run all benchmarks and make one report of them; exit with 1 if something got slower
    bench proto|queue|dispatch    run the benchmarks of one crate
    bench server [--json FILE] [OPTION]...
                                  the server from outside, beside a bare echo and QEMU
    bench counted [--json FILE]   count instructions and system calls of a request; exit with 1 if they are more than
                                  tests/counted.json says
    bench mux [--json FILE] [OPTION]...
                                  QEMU through a mux and directly
    consumers                     take each crate as a stranger would, packed: default, no and all features, minimal
                                  versions
    difffuzz [--count N] [--seed S] [--through-mux] [--files DIR] [OPTION]...
                                  compare our server, or our mux before QEMU, with QEMU on random input, or on files
    fuzz [reader|request|writer|audit|roles|addresses|configuration] [--seconds N] [--seed S]
                                  look for input that qmp-proto or qmp-server cannot cope with
    soak [--seconds N] [--seed S] [OPTION]...
                                  send our server clients of every bad sort, and see that no other client suffers
    soak --hostile [--seconds N] [--seed S] [--only serve|mux] [--qemu RELEASE] [--share SHARE]
                                  attack serve and mux in every known way at once, beside polite clients and a bare echo
    release [--dry-run] [--install] CRATE...|all
                                  check, pack, verify, publish and tag crates; --dry-run stops after verifying
    dist [archive|deb] [--check]  the program as it is handed out; --check makes it again elsewhere, compares, and has lintian
                                  and systemd look at it
    audit [--install]             what cargo-deny and cargo-machete say of the dependencies; installs them if asked to
    help                          this text
";

pub(crate) fn run() -> Outcome {
    print!("{TEXT}");
    Ok(())
}
