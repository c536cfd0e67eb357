// SPDX-License-Identifier: MIT OR Apache-2.0
//! How messages are laid out on the wire.

/// Whether a message takes one line, or one line for each member and element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One line for each message.
    #[default]
    Compact,
    /// QEMU's `pretty=on`: four blanks per level of nesting, and CR LF after each line. Clients that read line
    /// by line cannot read it.
    ///
    /// A message that would become more than eight times as long, and by more than 64 KiB, stays compact: lines a
    /// thousand levels deep would make 4 GB of a client's id of 2 MB. QEMU has no such limit.
    Pretty,
    /// One line for each message, ended by LF alone: as QEMU's guest agent writes.
    LineFeed,
}

/// How much longer than compact text pretty text may be: this many times, and this many bytes.
const MOST_TIMES: usize = 8;
const MOST_BYTES: usize = 64 << 10;

impl Layout {
    /// Completes the message that starts at `from` in `text`, and is compact: lays it out, and appends the end of its line.
    #[inline]
    pub(crate) fn finish(self, text: &mut String, from: usize) {
        if self == Layout::Pretty {
            let compact = text.split_off(from);
            if write_pretty(&compact, text).is_none() {
                text.truncate(from);
                text.push_str(&compact);
            }
        }
        text.push_str(match self {
            Layout::Compact | Layout::Pretty => "\r\n",
            Layout::LineFeed => "\n",
        });
    }
}

/// Returns `None` if it has stopped because the text would be too long.
fn write_pretty(compact: &str, out: &mut String) -> Option<()> {
    let most = out.len() + MOST_TIMES * compact.len() + MOST_BYTES;
    let line = |out: &mut String, level: usize| {
        out.push_str("\r\n");
        out.extend(std::iter::repeat_n("    ", level));
        (out.len() <= most).then_some(())
    };
    let mut level = 0;
    let mut rest = compact;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => string_len(rest),
            _ => first.len_utf8(),
        };
        let (token, tail) = rest.split_at(len);
        match token {
            "{" | "[" => {
                level += 1;
                out.push_str(token);
                // In an empty one, the only line break is that before its closer.
                if !tail.trim_start_matches(' ').starts_with(['}', ']']) {
                    line(out, level)?;
                }
            }
            "}" | "]" => {
                level -= 1;
                line(out, level)?;
                out.push_str(token);
            }
            "," => {
                out.push_str(token);
                line(out, level)?;
            }
            ":" => out.push_str(": "),
            " " => {}
            _ => out.push_str(token),
        }
        rest = tail;
    }
    Some(())
}

/// Returns the length of the string at the start of `text`, with its quotes.
pub(super) fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_output_has_a_line_per_member_and_element() {
        let mut text = String::from("before");
        text.push_str(r#"{"a\"{": [1, {}, []], "b": {"c": "x, y: z"}}"#);
        Layout::Pretty.finish(&mut text, 6);
        let expected = [
            r#"before{"#,
            r#"    "a\"{": ["#,
            r#"        1,"#,
            r#"        {"#,
            r#"        },"#,
            r#"        ["#,
            r#"        ]"#,
            r#"    ],"#,
            r#"    "b": {"#,
            r#"        "c": "x, y: z""#,
            r#"    }"#,
            r#"}"#,
            "",
        ];
        assert_eq!(text, expected.join("\r\n"));
    }

    #[test]
    fn a_guest_agent_ends_lines_without_cr() {
        let mut text = String::from("{}");
        Layout::LineFeed.finish(&mut text, 0);
        assert_eq!(text, "{}\n");
    }

    #[test]
    fn deep_messages_do_not_grow_by_their_depth() {
        let nested = |elements: usize| {
            let mut text =
                format!("{}1{}{}", "[".repeat(1000), ", 1".repeat(elements), "]".repeat(1000));
            let compact = text.clone();
            Layout::Pretty.finish(&mut text, 0);
            (text, compact + "\r\n")
        };
        for elements in [0, 10_000] {
            let (text, compact) = nested(elements);
            assert!(text == compact, "{} bytes became {}", compact.len(), text.len());
        }
        // As deep as this, everything that is not large is laid out.
        let mut text = format!("{}1{}", "[".repeat(80), "]".repeat(80));
        Layout::Pretty.finish(&mut text, 0);
        assert_eq!(text.lines().count(), 161);
    }
}
