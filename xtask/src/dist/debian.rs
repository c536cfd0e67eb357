// SPDX-License-Identifier: MIT OR Apache-2.0
//! A package for Debian and its derivatives: `qmp-server_VERSION-1_ARCHITECTURE.deb`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::origin::Origin;
use super::tree::Tree;
use super::{EXAMPLE, Parts, UNITS, USER};
use crate::command::{Failure, Outcome, output_of};
use crate::files;
use crate::install::Program;

pub(super) const PROGRAMS: [Program; 4] = [
    ("dpkg", "dpkg"),
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("md5sum", "coreutils"),
];

const DOCUMENTS: &str = "usr/share/doc/qmp-server";

pub(super) fn make(parts: &Parts<'_>, place: &Path) -> Outcome<PathBuf> {
    let mut tree = Tree::new(place.join("deb"))?;
    fill(&mut tree, parts)?;
    let architecture = output_of(Command::new("dpkg").arg("--print-architecture"))?;
    let size = size_of(&tree)?;
    let sums = output_of(Command::new("md5sum").args(tree.files()).current_dir(tree.root()))?;
    let control = filled(
        &parts.read("xtask/dist/debian/control")?,
        &[
            ("VERSION", &parts.origin.version),
            ("ARCHITECTURE", architecture.trim()),
            ("MAINTAINER", &parts.origin.author),
            ("SIZE", &size.to_string()),
            ("DEPENDS", &libraries(&parts.program, &place.join("shlibdeps"))?),
        ],
    );
    tree.file("DEBIAN/control", control)?;
    tree.file("DEBIAN/md5sums", sums)?;
    tree.program("DEBIAN/postinst", &parts.source.join("xtask/dist/debian/postinst"))?;

    let version = &parts.origin.version;
    let package = place.join(format!("qmp-server_{version}-1_{}.deb", architecture.trim()));
    let mut build = Command::new("dpkg-deb");
    // dpkg-deb gives this time to files that are newer, and all of them are.
    build.env("SOURCE_DATE_EPOCH", &parts.origin.epoch);
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(tree.root()).arg(&package);
    output_of(&mut build)?;
    Ok(package)
}

fn fill(tree: &mut Tree, parts: &Parts<'_>) -> Outcome {
    tree.program("usr/bin/qmp-server", &parts.program)?;
    for (name, page) in &parts.generated.pages {
        tree.zipped(&format!("usr/share/man/man1/{name}"), page)?;
    }
    for (shell, name, script) in &parts.generated.completions {
        let path = match *shell {
            "bash" => "usr/share/bash-completion/completions/qmp-server".to_owned(),
            "fish" => format!("usr/share/fish/vendor_completions.d/{name}"),
            "zsh" => format!("usr/share/zsh/vendor-completions/{name}"),
            _ => continue,
        };
        tree.file(&path, script)?;
    }
    for name in UNITS {
        tree.copy(&format!("usr/lib/systemd/system/{name}"), &parts.unit(name))?;
    }
    tree.copy(&format!("usr/lib/sysusers.d/{USER}"), &parts.unit(USER))?;
    tree.directory("etc/qmp-server")?;
    tree.copy(&format!("{DOCUMENTS}/examples/mux.toml"), &parts.source.join(EXAMPLE))?;
    tree.file(&format!("{DOCUMENTS}/copyright"), copyright(parts)?)?;
    tree.zipped(&format!("{DOCUMENTS}/third-party.txt"), &parts.third_party)?;
    tree.zipped(&format!("{DOCUMENTS}/changelog"), &parts.read("CHANGELOG.md")?)?;
    tree.zipped(&format!("{DOCUMENTS}/changelog.Debian"), changelog(parts))?;
    for path in parts.documents()? {
        let name = path.trim_start_matches("docs/");
        tree.copy(&format!("{DOCUMENTS}/{name}"), &parts.source.join(&path))?;
    }
    Ok(())
}

/// Returns the size in KiB as Debian counts it: each file rounded up, and one for each directory.
fn size_of(tree: &Tree) -> Outcome<u64> {
    let mut directories = BTreeSet::new();
    let mut size = 0;
    for file in tree.files() {
        let path = tree.root().join(file);
        let metadata = fs::metadata(&path);
        let metadata = metadata.map_err(|error| format!("{}: {error}", path.display()))?;
        size += metadata.len().div_ceil(1024);
        directories.extend(Path::new(file).ancestors().skip(1).map(Path::to_owned));
    }
    Ok(size + directories.len() as u64)
}

/// Returns the packages of the libraries that the program is linked with, in the versions whose symbols it uses.
fn libraries(program: &Path, place: &Path) -> Outcome<String> {
    // dpkg-shlibdeps works only in the sources of a package, so this directory imitates them.
    files::fresh_directory(&place.join("debian"))?;
    files::write(
        &place.join("debian/control"),
        "Source: qmp-server\n\nPackage: qmp-server\nArchitecture: any\n",
    )?;
    let mut find = Command::new("dpkg-shlibdeps");
    find.args(["-O", "--warnings=0", "-e"]).arg(program).current_dir(place);
    let said = output_of(&mut find)?;
    let found = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    let found = found.map(str::to_owned);
    found.ok_or_else(|| Failure::Task("dpkg-shlibdeps finds no library".to_owned()))
}

fn copyright(parts: &Parts<'_>) -> Outcome<String> {
    let mit = parts.read("LICENSE-MIT")?;
    let holder = mit.lines().find_map(|line| line.strip_prefix("Copyright (c) "));
    let holder = holder.ok_or_else(|| "LICENSE-MIT names nobody".to_owned())?;
    let template = parts.read("xtask/dist/debian/copyright")?;
    Ok(filled(&template, &[("COPYRIGHT", holder), ("MIT", &continued(&mit))]))
}

/// Returns a text in the form of a field's continuation: each line begins with a space, and none is empty.
fn continued(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| match line.trim_end() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn changelog(parts: &Parts<'_>) -> String {
    let Origin { version, build, author, date, .. } = parts.origin;
    format!(
        "qmp-server ({version}-1) unstable; urgency=medium\n\n  * {build}; changelog.gz tells what is new.\n\n \
         -- {author}  {date}\n"
    )
}

/// Returns a template with its fields filled in.
fn filled(template: &str, fields: &[(&str, &str)]) -> String {
    fields
        .iter()
        .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let control = include_str!("../../dist/debian/control");
        let names = ["VERSION", "ARCHITECTURE", "MAINTAINER", "SIZE", "DEPENDS"];
        let filled = filled(control, &names.map(|name| (name, "x")));
        assert!(filled.starts_with("Package: qmp-server\nVersion: x-1\n"));
        assert!(!filled.contains('@'), "{filled}");
    }

    #[test]
    fn a_text_stands_below_its_field() {
        assert_eq!(continued("one\n\n two\n"), " one\n .\n  two");
    }
}
