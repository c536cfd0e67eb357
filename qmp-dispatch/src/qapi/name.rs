// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of commands, events, members and values.

/// Whether QAPI allows this name (`check_name_str` of `scripts/qapi/expr.py`): a letter, then letters,
/// digits, `-` and `_`; in front of that `__RFQDN_` if it belongs to somebody downstream.
pub(crate) fn is_name(name: &str) -> bool {
    let own = match name.strip_prefix("__") {
        None => name,
        Some(downstream) => match downstream.split_once('_') {
            Some((domain, own)) if !domain.is_empty() && consists_of(domain, b".-") => own,
            _ => return false,
        },
    };
    own.starts_with(|first: char| first.is_ascii_alphabetic()) && consists_of(own, b"-_")
}

/// Whether QAPI allows this name for a value of an enum, which may begin with a digit.
pub(crate) fn is_value(name: &str) -> bool {
    is_name(name)
        || name.starts_with(|first: char| first.is_ascii_digit()) && consists_of(name, b"-_")
}

fn consists_of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_qapi() {
        for name in ["stop", "qmp_capabilities", "x-query-roms", "__com.redhat_drive-mirror", "A1"]
        {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1st", "-a", "_a", "a b", "a.b", "é", "__a", "___a", "__a/b_c", "__a_1"] {
            assert!(!is_name(name), "{name}");
        }
        for value in ["0", "2x", "none", "kp_0"] {
            assert!(is_value(value), "{value}");
        }
        for value in ["", "0.10", "a b", "-1"] {
            assert!(!is_value(value), "{value}");
        }
    }
}
