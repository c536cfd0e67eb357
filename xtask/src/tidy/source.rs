// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must and must not stand in files.

const HEADER: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0";

pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if path.ends_with(".rs") {
        if text.lines().next() != Some(HEADER) {
            complaints.push(format!("{path}: the first line is not '{HEADER}'"));
        }
        let code = code_only(text);
        for (number, line) in (1..).zip(code.lines()) {
            if words(line).any(|word| word == forbidden_word()) {
                complaints.push(format!("{path}:{number}: {} code", forbidden_word()));
            }
        }
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

// Put together from pieces, so that this file does not complain of itself.

fn forbidden_word() -> &'static str {
    concat!("un", "safe")
}

fn machine_directories() -> [String; 3] {
    ["home", "Users", "root"].map(|directory| format!("/{directory}/"))
}

fn registry_settings() -> [String; 4] {
    [("index", "url"), ("find", "links"), ("replace", "with"), ("trusted", "host")]
        .map(|(one, two)| format!("{one}-{two}"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !(character.is_alphanumeric() || character == '_'))
}

/// The text of a Rust file without its comments and without what its strings hold. Line numbers stay.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            'r' if !ends_with_word(&code) => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].matches('\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn ends_with_word(code: &str) -> bool {
    code.ends_with(|character: char| character.is_alphanumeric() || character == '_')
}

/// The length of the comment at the start of the text; such comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of what is quoted at the start of the text.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, character)| {
        let found = !escaped && character == quote;
        escaped = !escaped && character == '\\';
        found
    });
    end.map_or(text.len(), |(at, _)| at + quote.len_utf8())
}

/// The length of the raw string at the start of the text, 0 if there is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|&byte| byte == b'#').count();
    if text.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let start = hashes + 2;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// The length of the character at the start of the text, 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => quoted(text, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
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
    fn code_that_the_compiler_cannot_vouch_for_is_found() {
        let word = forbidden_word();
        assert_eq!(complaints(&format!("fn f() {{ {word} {{ g() }} }}")), 1);
        assert_eq!(
            complaints(&format!("/* {word} /* nested */ */ let c = '\"'; {word} fn g() {{}}")),
            1
        );
        assert_eq!(complaints(&format!("let quote = '\\''; {word} fn g() {{}}")), 1);
        assert_eq!(complaints(&format!("fn f<'a>(x: &'a str) {{}} {word} fn g() {{}}")), 1);
    }

    #[test]
    fn talking_about_it_is_no_offence() {
        let word = forbidden_word();
        for code in [
            format!("// {word}"),
            format!("/* {word} /* {word} */ {word} */"),
            format!("let text = \"a \\\" {word}\";"),
            format!("let text = r#\"\" {word}\"#;"),
            format!("#![forbid({word}_code)]"),
        ] {
            assert_eq!(complaints(&code), 0, "{code}");
        }
    }

    #[test]
    fn complaints_name_the_line() {
        let text = file(&format!("/*\n\n*/\nlet text = \"\n\";\n{} fn f() {{}}", forbidden_word()));
        assert!(check("a.rs", &text)[0].starts_with("a.rs:7: "));
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
