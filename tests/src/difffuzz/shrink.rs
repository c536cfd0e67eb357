// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making inputs smaller as long as they still show what they showed.

/// A smaller list of inputs that still `shows` it: with fewer inputs, shorter ones, and plainer bytes.
pub(super) fn shrink(inputs: Vec<Vec<u8>>, shows: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    let mut inputs = remove_parts(inputs, &shows);
    for at in 0..inputs.len() {
        let with = |input: &[u8]| {
            let mut changed = inputs.clone();
            changed[at] = input.to_vec();
            changed
        };
        let shorter = remove_parts(inputs[at].clone(), |input| shows(&with(input)));
        let plainer = replace_bytes(shorter, |input| shows(&with(input)));
        inputs[at] = plainer;
    }
    inputs
}

/// Removes halves, quarters, and so on down to single items.
fn remove_parts<T: Clone>(mut items: Vec<T>, shows: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut len = items.len();
    while len > 0 {
        let mut at = 0;
        while at < items.len() {
            let mut fewer = items.clone();
            fewer.drain(at..(at + len).min(items.len()));
            if shows(&fewer) {
                items = fewer;
            } else {
                at += len;
            }
        }
        len /= 2;
    }
    items
}

fn replace_bytes(mut input: Vec<u8>, shows: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    for at in 0..input.len() {
        let byte = input[at];
        for plain in [b'a', b'1', b' '] {
            if byte == plain {
                break;
            }
            input[at] = plain;
            if shows(&input) {
                break;
            }
            input[at] = byte;
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_but_what_is_needed() {
        let inputs = vec![b"one".to_vec(), b"tw@x{o".to_vec(), b"three".to_vec()];
        let shrunk = shrink(inputs, |inputs| {
            inputs.iter().any(|input| input.contains(&b'@') && input.contains(&b'{'))
        });
        assert_eq!(shrunk, [b"@{".to_vec()]);
    }
}
