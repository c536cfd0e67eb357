// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes values like the serializer, but faster: without its generic calls.

use super::scalar::{write_double, write_integer, write_string};
use crate::{Object, Value};

pub(super) fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => write_integer(integer, out),
            (None, Some(integer)) => write_integer(integer, out),
            (None, None) => write_double(number.as_f64(), out),
        },
        Value::String(text) => write_string(text, out),
        Value::Array(array) => write_array(array, out),
        Value::Object(object) => write_object(object, out),
    }
}

fn write_array(array: &[Value], out: &mut String) {
    let mut opener = "[";
    for element in array {
        out.push_str(std::mem::replace(&mut opener, ", "));
        write_value(element, out);
    }
    out.push_str(if array.is_empty() { "[]" } else { "]" });
}

pub(super) fn write_object(object: &Object, out: &mut String) {
    let mut opener = "{";
    for (name, value) in object.iter_in_qemu_order() {
        out.push_str(std::mem::replace(&mut opener, ", "));
        write_string(name, out);
        out.push_str(": ");
        write_value(value, out);
    }
    out.push_str(if object.is_empty() { "{}" } else { "}" });
}

#[cfg(test)]
mod tests {
    use crate::{Json, Reader};

    #[test]
    fn trees_are_written_like_the_serializer_writes_them() {
        let text = br#"{"minor": [], "micro": {}, "a": [null, true, false, -1, 18446744073709551615, 1.5, "\u00E9"]}"#;
        let mut reader = Reader::default();
        let value = reader.read(&mut &text[..]).unwrap().unwrap().to_value().unwrap();
        assert_eq!(Json::from(&value), Json::encode(&value).unwrap());
        assert!(Json::from(&value).as_str().contains("\"micro\": {}, \"minor\": []"));
    }
}
