// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks which crate may depend on which: arrows only point down.

use cargo_metadata::{Dependency, DependencyKind, Package};

use crate::workspace::members;

/// What a crate may depend on.
struct Layer {
    name: &'static str,
    /// Members of this workspace, for tests too.
    members: &'static [&'static str],
    /// Other packages at run time; `None` for any.
    others: Option<&'static [&'static str]>,
}

const LAYERS: [Layer; 9] = [
    Layer {
        name: "qmp-proto",
        members: &[],
        others: Some(&["itoa", "serde", "serde_json", "thiserror"]),
    },
    Layer {
        name: "qmp-queue",
        members: &[],
        others: Some(&["crossbeam-channel", "slab", "thiserror"]),
    },
    Layer { name: "qmp-codegen", members: &["qmp-proto"], others: Some(&["thiserror"]) },
    Layer {
        name: "qmp-dispatch-macros",
        members: &[],
        others: Some(&["proc-macro2", "quote", "syn"]),
    },
    Layer {
        name: "qmp-dispatch",
        members: &["qmp-proto", "qmp-dispatch-macros"],
        others: Some(&[
            "arc-swap",
            "rustc-hash",
            "schemars",
            "scoped-tls",
            "serde",
            "serde_json",
            "thiserror",
            "tracing",
        ]),
    },
    Layer {
        name: "qmp-server",
        members: &["qmp-proto", "qmp-queue", "qmp-dispatch"],
        others: None,
    },
    Layer {
        name: "qmp-server-cli",
        members: &["qmp-proto", "qmp-queue", "qmp-dispatch", "qmp-server"],
        others: None,
    },
    Layer { name: "xtask", members: &[], others: None },
    Layer {
        name: "tests",
        members: &["qmp-proto", "qmp-queue", "qmp-codegen", "qmp-dispatch", "qmp-server"],
        others: None,
    },
];

pub(super) fn check(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
        return vec![format!("{name} has no place among the layers")];
    };
    let complaint = |dependency: &Dependency| {
        let other = dependency.name.as_str();
        if members().any(|member| member == other) {
            (!layer.members.contains(&other)).then(|| format!("{name} must not know {other}"))
        } else {
            let allowed = dependency.kind == DependencyKind::Development
                || layer.others.is_none_or(|others| others.contains(&other));
            (!allowed).then(|| format!("{name} has no use for {other} at run time"))
        }
    };
    package.dependencies.iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::metadata::{dependency, package};

    #[track_caller]
    fn check_complaints(name: &str, other: &str, kind: Value, expected: &[&str]) {
        let dependencies = json!([dependency(other, "^1", kind)]);
        assert_eq!(check(&package(name, json!({"dependencies": dependencies}))), expected);
    }

    #[test]
    fn arrows_point_down() {
        check_complaints("qmp-dispatch", "qmp-proto", json!(null), &[]);
        for kind in [json!(null), json!("dev"), json!("build")] {
            let expected = ["qmp-proto must not know qmp-dispatch"];
            check_complaints("qmp-proto", "qmp-dispatch", kind, &expected);
        }
    }

    #[test]
    fn run_time_dependencies_are_few() {
        check_complaints("qmp-queue", "proptest", json!("dev"), &[]);
        check_complaints("qmp-server", "rustls", json!(null), &[]);
        let expected = ["qmp-queue has no use for tokio at run time"];
        check_complaints("qmp-queue", "tokio", json!(null), &expected);
    }

    #[test]
    fn a_new_member_needs_a_place() {
        assert_eq!(check(&package("qmp-extra", json!({}))).len(), 1);
        for member in members() {
            assert_eq!(check(&package(member, json!({}))), [""; 0]);
        }
    }
}
