// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the contents of files.

const HEADER: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0";

pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if path.ends_with(".rs") && text.lines().next() != Some(HEADER) {
        complaints.push(format!("{path}: the first line is not '{HEADER}'"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        complaints.extend(
            machine_directories().iter().filter(|directory| line.contains(directory.as_str())).map(
                |directory| {
                    format!("{path}:{number}: a path of somebody's machine, below {directory}")
                },
            ),
        );
        if registry_settings().iter().any(|setting| line.contains(setting)) {
            complaints
                .push(format!("{path}:{number}: a registry setting, which is up to each machine"));
        }
        if path == "Cargo.lock"
            && line.starts_with("source = ")
            && !line.ends_with("/crates.io-index\"")
        {
            complaints.push(format!("{path}:{number}: a package from elsewhere than crates.io"));
        }
    }
    complaints
}

// Composed of pieces, so that this file passes its own check.

fn machine_directories() -> [String; 3] {
    ["home", "Users", "root"].map(|directory| format!("/{directory}/"))
}

fn registry_settings() -> [String; 4] {
    [("index", "url"), ("find", "links"), ("replace", "with"), ("trusted", "host")]
        .map(|(one, two)| format!("{one}-{two}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(code: &str) -> String {
        format!("{HEADER}\n{code}\n")
    }

    fn complaints(code: &str) -> usize {
        check("src/lib.rs", &file(code)).len()
    }

    #[test]
    fn every_rust_file_starts_with_its_licence() {
        assert_eq!(complaints("fn main() {}"), 0);
        assert_eq!(check("src/lib.rs", "fn main() {}\n").len(), 1);
        assert_eq!(check("README.md", "# Title\n").len(), 0);
    }

    #[test]
    fn paths_and_settings_of_a_machine_are_found() {
        for directory in machine_directories() {
            assert_eq!(check("README.md", &format!("cd {directory}me/src\n")).len(), 1);
        }
        for setting in registry_settings() {
            assert_eq!(check("requirements.txt", &format!("--{setting}=x\n")).len(), 1);
        }
        assert_eq!(check("Cargo.lock", "source = \"registry+x/crates.io-index\"\n").len(), 0);
        assert_eq!(check("Cargo.lock", "source = \"registry+x/mirror-index\"\n").len(), 1);
    }
}
