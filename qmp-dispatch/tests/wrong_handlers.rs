// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wrong handlers, and what the compiler says about each: it names the part that is wrong, and the way out.
//!
//! Each is a program of a package that this test writes, and all are checked by one call of Cargo. Of what the compiler
//! prints, only our own words are expected, apart from what it words well by itself (lifetimes, and futures that are not
//! `Send`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// A wrong program. The file has those of handlers first, then methods, and then other uses of the attribute.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// What the compiler is to say.
    says: String,
    #[serde(default)]
    items: String,
    /// What uses the items.
    #[serde(default = "registration")]
    statements: String,
    /// In place of items and statements: methods of a block with the attribute, ...
    method: Option<String>,
    /// ... and what is underlined, or part of it.
    at: Option<String>,
}

fn registration() -> String {
    "registry.command(\"x\", handler)?;".to_owned()
}

fn cases() -> Vec<Case> {
    let lines = include_str!("wrong_handlers.jsonl").lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// What must compile, so that the others fail for the reason that is given.
const RIGHT: &str = "right";

fn program(items: &str, statements: &str) -> String {
    format!(
        "#![allow(warnings)]
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{{
    AsyncContext, Context, RegisterError, Registry, Responder, Task, qapi_types, qmp_commands,
}};

qapi_types! {{
    struct New {{
        size: i64,
    }}
}}

struct Disk;

struct Plain;

#[derive(qmp_dispatch::serde::Deserialize)]
#[serde(crate = \"qmp_dispatch::serde\")]
struct Decoded;

#[derive(qmp_dispatch::serde::Serialize)]
#[serde(crate = \"qmp_dispatch::serde\")]
struct Encoded;

{items}

fn main() -> Result<(), RegisterError> {{
    let mut registry = Registry::new();
    registry.set_executor(|task: Task| task.run());
    {statements}
    Ok(())
}}
"
    )
}

/// Writes the package.
fn write_package(directory: &Path, cases: &[Case]) {
    let bins = directory.join("src/bin");
    let _ = fs::remove_dir_all(&bins);
    fs::create_dir_all(&bins).unwrap();
    let own = env!("CARGO_MANIFEST_DIR");
    // The profile is the workspace's, so that Cargo takes dependencies that have been checked for it.
    let manifest = format!(
        "[package]\nname = \"wrong\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         qmp-dispatch = {{ path = {own:?}, features = [\"macros\"] }}\n\n\
         [profile.dev]\ndebug = \"line-tables-only\"\n\n[profile.dev.package.\"*\"]\ndebug = false\n"
    );
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    // The versions of the workspace, which are there already.
    let lock = Path::new(own).join("../Cargo.lock");
    if lock.exists() {
        fs::copy(lock, directory.join("Cargo.lock")).unwrap();
    }
    let write =
        |name: &str, text: String| fs::write(bins.join(format!("{name}.rs")), text).unwrap();
    for Case { name, items, statements, method, .. } in cases {
        let text = match method {
            Some(method) => {
                program(&format!("#[qmp_commands]\nimpl Disk {{\n    {method}\n}}"), "")
            }
            None => program(items, statements),
        };
        write(name, text);
    }
    let right = "#[qmp_commands] impl Disk { #[qmp(oob)] fn x(&self, size: i64) {} }";
    write(RIGHT, program(right, "Arc::new(Disk).register(&mut registry)?;"));
}

/// Checks all programs in the target directory of whoever runs this test. Returns the errors of each.
fn errors(directory: &Path) -> BTreeMap<String, Vec<Value>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut check = Command::new(cargo);
    check.args(["check", "--offline", "--bins", "--keep-going", "--message-format", "json"]);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    check.current_dir(directory).env("CARGO_TARGET_DIR", target);
    // Of whoever runs this test.
    check.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = check.output().unwrap();
    let mut errors = BTreeMap::<String, Vec<Value>>::new();
    let mut checked = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
        checked += usize::from(message["reason"] == "compiler-artifact" && name == RIGHT);
        if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
            errors.entry(name).or_default().push(message["message"].clone());
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let right: String = errors.get(RIGHT).into_iter().flatten().map(rendered).collect();
    assert_eq!(checked, 1, "{RIGHT} does not compile: {right}\n{said}");
    errors
}

/// What the compiler prints.
fn rendered(error: &Value) -> &str {
    error["rendered"].as_str().unwrap_or_default()
}

/// What is underlined.
fn underlined(error: &Value) -> Vec<String> {
    let spans = error["spans"].as_array().into_iter().flatten();
    let primary = spans.filter(|span| span["is_primary"] == true);
    let text = |span: &Value| {
        let line = &span["text"][0];
        let column = |name: &str| line[name].as_u64().unwrap_or(1) as usize - 1;
        let (start, end) = (column("highlight_start"), column("highlight_end"));
        let text = line["text"].as_str().unwrap_or_default();
        text.chars().skip(start).take(end - start).collect()
    };
    primary.map(text).collect()
}

#[test]
fn the_compiler_names_what_is_wrong_and_the_way_out() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong");
    let cases = cases();
    write_package(&directory, &cases);
    let errors = errors(&directory);
    let mut failures = String::new();
    for Case { name, says, at, .. } in &cases {
        let errors = errors.get(name).map_or(&[][..], Vec::as_slice);
        let is_right = |error: &&Value| {
            let is_there = |at: &str| {
                underlined(error).iter().any(|text| !text.is_empty() && at.contains(text.as_str()))
            };
            rendered(error).contains(says.as_str()) && at.as_deref().is_none_or(is_there)
        };
        if errors.iter().find(is_right).is_none() {
            let said: String = errors.iter().map(rendered).collect();
            let at = at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
            failures += &format!("==== {name}: expected '{says}'{at}\n{said}\n");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
