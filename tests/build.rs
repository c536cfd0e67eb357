// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generates types of commands of QEMU 11.1, for the tests in `tests/typed`, as the program of an embedder would.

fn main() -> Result<(), qmp_codegen::Error> {
    qmp_codegen::Generator::new()
        .served_by("qmp_server::dispatch")
        .build("schema/qemu-11.1-typed.jsonl", "typed.rs")
}
