// SPDX-License-Identifier: MIT OR Apache-2.0
//! An archive for any Linux: `qmp-server-VERSION-TARGET.tar.gz`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree::Tree;
use super::{EXAMPLE, Parts, UNITS, USER, checksums};
use crate::command::{Outcome, run};

/// Files of the repository that the archive contains, besides `docs`.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

pub(super) fn make(parts: &Parts<'_>, place: &Path) -> Outcome<PathBuf> {
    let title = parts.origin.title();
    let mut tree = Tree::new(place.join("archive").join(&title))?;
    tree.program("qmp-server", &parts.program)?;
    let documents = parts.documents()?;
    for document in DOCUMENTS.into_iter().chain(documents.iter().map(String::as_str)) {
        tree.copy(document, &parts.source.join(document))?;
    }
    tree.file("THIRD-PARTY.txt", &parts.third_party)?;
    for (name, page) in &parts.generated.pages {
        tree.file(&format!("man/man1/{name}"), page)?;
    }
    for (_, name, script) in &parts.generated.completions {
        tree.file(&format!("completions/{name}"), script)?;
    }
    for name in UNITS.into_iter().chain([USER]) {
        tree.copy(&format!("systemd/{name}"), &parts.unit(name))?;
    }
    tree.copy("examples/mux.toml", &parts.source.join(EXAMPLE))?;
    let sums = checksums(tree.root(), &tree.files())?;
    tree.file("SHA256SUMS", sums)?;

    let archive = place.join(format!("{title}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{}", parts.origin.epoch));
    tar.args(["--use-compress-program", "gzip --no-name --best", "--create", "--file"]);
    tar.arg(&archive).arg("--directory").arg(place.join("archive")).arg(&title);
    run(&mut tar)?;
    Ok(archive)
}
