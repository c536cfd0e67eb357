// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random input, compared with QEMU.

use qmp_proto::Dialect;
use tests::difffuzz::peer::Subject;
use tests::difffuzz::{Options, Outcome, arguments, files, messages};
use tests::programs::Oracle;

#[track_caller]
fn check_same(outcome: Result<Outcome, String>, count: u64) {
    match outcome.expect("the inputs can be compared") {
        Outcome::Same { inputs, .. } => assert_eq!(inputs, count),
        Outcome::Different(difference) => panic!("{difference}"),
    }
}

/// Returns the dialects whose QEMU has this program. The calling test is skipped for the others.
fn dialects(program: &str) -> impl Iterator<Item = Dialect> {
    Dialect::ALL.into_iter().filter(|&dialect| Oracle::of(dialect).program(program).is_some())
}

#[test]
fn the_server_answers_random_input_as_qemu_does() {
    for dialect in dialects("qemu-storage-daemon") {
        let options = Options::new(10_000);
        check_same(messages::run(dialect, &options, Some(Subject::Server)), options.count);
    }
}

#[test]
fn the_server_finds_the_mistakes_in_arguments_that_qemu_finds() {
    for dialect in dialects("qemu-system-x86_64") {
        let options = Options::new(3000);
        check_same(arguments::run(dialect, &options, Subject::Server), options.count);
    }
}

#[test]
fn the_mux_answers_random_input_as_the_qemu_behind_it_does() {
    for dialect in dialects("qemu-storage-daemon") {
        let options = Options { stream: 10, ..Options::new(2000) };
        check_same(messages::run(dialect, &options, Some(Subject::Mux)), options.count);
    }
}

#[test]
fn the_server_says_what_qemu_says_when_nothing_follows() {
    let files: [&[u8]; 8] = [
        b"[1,]",
        b"{'execute': 'none', 'id': [true, 'x']} {'id'",
        b"2@",
        b"\xEF\xBB\xBF{}",
        b"['\\uD800\\uDC00\\uD800', \"\xE0\xFF\", 1e5, -0, 0012]",
        b"{'a': {'b': 1, 'b': 2}}nul\n",
        b"[[[]]]]",
        b"\xFF\xFE[\x00\"\x00]\x00",
    ];
    let directory = tempfile::tempdir().unwrap();
    for (index, contents) in files.iter().enumerate() {
        std::fs::write(directory.path().join(index.to_string()), contents).unwrap();
    }
    for dialect in dialects("qemu-storage-daemon") {
        let outcome = files::run(dialect, directory.path(), 1, Subject::Server).unwrap();
        let Outcome::Same { inputs, answers } = outcome else { panic!("{outcome:?}") };
        assert!(inputs > 100 && answers > 50, "{inputs} inputs, {answers} answers");
    }
}
