// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask help`.

use crate::command::Outcome;

const TEXT: &str = "\
cargo xtask TASK

    test                          install what the tests need, then check and test everything
    tidy                          check the rules of the workspace that the compiler does not check
    conformance [OPTION]...       run the recorded cases against our server
    conformance --connect ADDRESS [OPTION]...
                                  run them against another server; see --help and docs/conformance.md
    oracles                       unpack QEMU 10.0, 11.1 and the guest agent into the target directory, and print the directories of their programs
    bench [all] [--quick] [--out DIR]
                                  run all benchmarks and write one report
    bench proto|queue|dispatch    run the benchmarks of one crate
    bench server [--json FILE] [OPTION]...
                                  measure the server as a client, beside a bare echo server and QEMU
    bench counted [--json FILE]   count instructions and system calls of a request; exit with 1 if they are more than in
                                  tests/counted.json
    bench mux [--json FILE] [OPTION]...
                                  measure QEMU through a mux and directly
    consumers                     build each packed crate from outside the workspace: default, no and all features, minimal
                                  versions
    difffuzz [--count N] [--seed S] [--through-mux] [--files DIR] [OPTION]...
                                  compare our server, or our mux with QEMU behind it, with QEMU on random input, or on files
    fuzz [reader|request|writer|session|audit|roles|addresses|configuration|certificates|metrics|descriptors]...
         [--seconds N] [--seed S] [--files DIR]
                                  let libFuzzer search for input that qmp-proto or qmp-server handle wrongly; it starts from the
                                  conformance cases, what it found before, and the files of DIR
    fuzz TARGET --input FILE      feed one target with this file
    soak [--seconds N] [--seed S] [OPTION]...
                                  run misbehaving clients, and check that no other client suffers
    soak --hostile [--seconds N] [--seed S] [--only serve|mux] [--qemu RELEASE] [--share SHARE]
                                  attack serve and mux in every known way at once, beside polite clients and a bare echo
    soak --upgrades N [--machines N]
                                  upgrade a mux under load, in place and by restarts, and reload it
    soak --qemus N [--qemu RELEASE]
                                  share this many QEMUs, of which one stands still and one ends again and again
    soak --stdio N [--qemu RELEASE]
                                  start a mux at standard input and output N times, and miss no byte
    release [--dry-run] [--install] CRATE...|all
                                  check, pack, verify, publish and tag crates; --dry-run stops after verifying
    dist [archive|deb] [--check]  build the archive and the package of the program; --check builds them again elsewhere,
                                  compares, and runs lintian and systemd-analyze
    audit [--install]             check the dependencies with cargo-deny and cargo-machete; --install installs these tools
    help                          print this text
";

pub(crate) fn run() -> Outcome {
    print!("{TEXT}");
    Ok(())
}
