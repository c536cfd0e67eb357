// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arrays, element by element, as text.

use super::layout::string_len;

/// Returns the text of an array without the elements that are not to be kept; `None` if it is not an array.
pub(super) fn retain(text: &str, mut keep: impl FnMut(usize) -> bool) -> Option<String> {
    let mut rest = text.strip_prefix('[')?.trim_start_matches(' ');
    let mut kept = String::with_capacity(text.len());
    let mut opener = "[";
    let mut index = 0;
    while !rest.starts_with(']') {
        let (element, tail) = rest.split_at(element_len(rest));
        if keep(index) {
            kept.push_str(std::mem::replace(&mut opener, ", "));
            kept.push_str(element.trim_end_matches(' '));
        }
        index += 1;
        rest = tail.strip_prefix(',').unwrap_or(tail).trim_start_matches(' ');
    }
    kept.push_str(if opener == "[" { "[]" } else { "]" });
    Some(kept)
}

/// Returns the length of the element at the start of `text`, up to the comma or bracket after it.
fn element_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut level = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b',' | b']' if level == 0 => break,
            b'[' | b'{' => level += 1,
            b']' | b'}' => level -= 1,
            b'"' => {
                at += string_len(&text[at..]);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, drop: &[usize], expected: &str) {
        assert_eq!(retain(text, |index| !drop.contains(&index)).as_deref(), Some(expected));
    }

    #[test]
    fn elements_that_are_kept_keep_their_text() {
        let text = r#"[1,  {"a":[",", 2] },"]\"}",[ ]]"#;
        check(text, &[], r#"[1, {"a":[",", 2] }, "]\"}", [ ]]"#);
        check(text, &[0, 2], r#"[{"a":[",", 2] }, [ ]]"#);
        check(text, &[1, 3], r#"[1, "]\"}"]"#);
        check(text, &[0, 1, 2, 3], "[]");
    }

    #[test]
    fn empty_arrays_and_other_values() {
        check("[]", &[], "[]");
        check("[ ]", &[], "[]");
        assert_eq!(retain(r#"{"a": [1]}"#, |_| false), None);
    }
}
