// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every public type, trait and function of the libraries has an example.

const CRATES: [&str; 4] =
    ["qmp-proto/src/", "qmp-queue/src/", "qmp-dispatch/src/", "qmp-server/src/"];

/// What excuses a type: an example; that it is not shown; or that clients are told its documentation, who
/// have no use for Rust.
const EXCUSES: [&str; 3] = ["```", "doc(hidden)", "JsonSchema"];

/// Looks at what stands at the start of a line. The compiler warns of public items that cannot be
/// reached, so these can be.
pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    if !CRATES.iter().any(|folder| path.starts_with(folder)) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    let mut excused = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("///") || line.starts_with("#[") {
            excused |= EXCUSES.iter().any(|excuse| line.contains(excuse));
        } else if let Some(item) = public_item(line) {
            if !excused {
                complaints.push(format!("{path}:{number}: no example at '{item}'"));
            }
            excused = false;
        } else if !line.starts_with([' ', ')']) {
            excused = false;
        }
    }
    complaints
}

fn public_item(line: &str) -> Option<&str> {
    let item = line.strip_prefix("pub ")?;
    let plain = item.strip_prefix("const ").unwrap_or(item);
    let kind = plain.split(' ').next()?;
    let end = item.find(['(', '<', '{', ';', ':']).unwrap_or(item.len());
    ["enum", "fn", "struct", "trait"].contains(&kind).then(|| item[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public_wants_an_example() {
        let path = "qmp-proto/src/value.rs";
        let bare = "/// Text.\n#[derive(\n    Clone,\n)]\npub struct Value {\n}\n";
        assert_eq!(check(path, bare), [format!("{path}:5: no example at 'struct Value'")]);
        assert_eq!(check("xtask/src/value.rs", bare).len(), 0);
        let shown =
            "/// ```\n/// let x = 1;\n/// ```\n#[derive(\n    Clone,\n)]\npub struct Value {\n}\n";
        assert_eq!(check(path, shown).len(), 0);
        assert_eq!(check(path, &format!("{shown}\n/// Text.\npub const fn f() {{}}\n")).len(), 1);
        assert_eq!(check(path, "#[doc(hidden)]\npub enum Marker {}\n").len(), 0);
        assert_eq!(check(path, "#[derive(Clone, JsonSchema)]\npub struct Info;\n").len(), 0);
        assert_eq!(check(path, "pub mod m;\npub use m::Value;\npub(crate) fn f() {}\n").len(), 0);
    }
}
