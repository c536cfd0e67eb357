// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which crate may know which: an arrow only ever points down.

use crate::manifest::Manifest;
use crate::workspace::members;

/// What a crate may depend on.
struct Layer {
    name: &'static str,
    /// Members of this workspace, in whatever way.
    members: &'static [&'static str],
    /// Other packages at run time; `None` for any.
    others: Option<&'static [&'static str]>,
}

const LAYERS: [Layer; 7] = [
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
    Layer {
        name: "qmp-dispatch",
        members: &["qmp-proto"],
        others: Some(&[
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
    Layer { name: "xtask", members: &[], others: Some(&[]) },
    Layer {
        name: "tests",
        members: &["qmp-proto", "qmp-queue", "qmp-dispatch", "qmp-server"],
        others: None,
    },
];

pub(super) fn check(name: &str, manifest: &Manifest) -> Vec<String> {
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
        return vec![format!("{name} has no place among the layers")];
    };
    let is_member = |dependency: &str| members().any(|member| member == dependency);
    let all = manifest.dependencies(&["dependencies", "dev-dependencies", "build-dependencies"]);
    let run_time = manifest.dependencies(&["dependencies", "build-dependencies"]);
    let wrong_members = all.keys().filter(|dependency| {
        is_member(dependency) && !layer.members.contains(&dependency.as_str())
    });
    let wrong_others = run_time.keys().filter(|dependency| {
        !is_member(dependency)
            && layer.others.is_some_and(|others| !others.contains(&dependency.as_str()))
    });
    wrong_members
        .map(|dependency| format!("{name} must not know {dependency}"))
        .chain(
            wrong_others
                .map(|dependency| format!("{name} has no use for {dependency} at run time")),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_complaints(name: &str, manifest: &str, expected: &[&str]) {
        assert_eq!(check(name, &Manifest::parse(manifest)), expected);
    }

    #[test]
    fn arrows_point_down() {
        check_complaints("qmp-dispatch", "[dependencies]\nqmp-proto.workspace = true\n", &[]);
        check_complaints(
            "qmp-proto",
            "[dependencies]\nqmp-dispatch.workspace = true\n",
            &["qmp-proto must not know qmp-dispatch"],
        );
        check_complaints(
            "qmp-queue",
            "[dev-dependencies]\nproto = { path = \"../qmp-proto\", package = \"qmp-proto\" }\n",
            &["qmp-queue must not know qmp-proto"],
        );
    }

    #[test]
    fn run_time_dependencies_are_few() {
        check_complaints("qmp-queue", "[dev-dependencies]\nproptest.workspace = true\n", &[]);
        check_complaints(
            "qmp-queue",
            "[dependencies]\ntokio = \"1\"\n",
            &["qmp-queue has no use for tokio at run time"],
        );
        check_complaints(
            "xtask",
            "[dependencies.clap]\nworkspace = true\n",
            &["xtask has no use for clap at run time"],
        );
        check_complaints("qmp-server", "[dependencies]\nrustls = \"1\"\n", &[]);
    }

    #[test]
    fn a_new_member_needs_a_place() {
        assert_eq!(check("qmp-extra", &Manifest::default()).len(), 1);
        for member in members() {
            assert_eq!(check(member, &Manifest::default()), [""; 0]);
        }
    }
}
