// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that the tests exist by which a document proves what it promises.

/// Takes a document whose tables name tests in their last columns, and the texts in which the tests are.
pub(super) fn check(document: &str, text: &str, sources: &[String]) -> Vec<String> {
    let is_defined = |name: &str| {
        let definition = format!("fn {name}(");
        sources.iter().any(|source| source.contains(&definition))
    };
    let missing = |name: &&str| !is_defined(name);
    let complaint = |name| format!("{document}: there is no test {name}");
    tests(text).filter(missing).map(complaint).collect()
}

/// The names of tests in the last cells of tables. Modules and fuzz targets have shorter names.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    let rows = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = rows.filter_map(|row| row.rsplit('|').next());
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|code| code.matches('_').count() > 1 && !code.contains(|c: char| !is_of_name(c)))
}

fn is_of_name(c: char) -> bool {
    c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_a_table_names_have_to_exist() {
        let text = "`of_no_table`\n| a | b |\n|---|---|\n\
            | x `not_the_last_cell` | `it_is_so`, `it_is_not_so` (unit), fuzz target `metrics` |\n";
        let sources = ["".to_owned(), "fn it_is_so() {}".to_owned()];
        assert_eq!(check("d.md", text, &sources), ["d.md: there is no test it_is_not_so"]);
    }
}
