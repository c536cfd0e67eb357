// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers send in answer to a command.

use crate::json::{RETURN, USUAL_SIZE};
use crate::{Error, Json, Layout, Value};

/// The answer to one request: success or error, with the id of the request if it had one.
///
/// A command without success response (QAPI's `'success-response': false`) has no `Response` when
/// it succeeds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The id of the request.
    pub id: Option<Value>,
    /// What the command returned, or what went wrong.
    pub result: Result<Json, Error>,
}

impl Response {
    /// Creates the response to a request with this id, or without one.
    pub fn new(id: Option<Value>, result: Result<Json, Error>) -> Response {
        Response { id, result }
    }

    /// Appends the response as QEMU writes it, with the end of its line.
    pub fn write(&self, layout: Layout, out: &mut String) {
        let from = out.len();
        match &self.result {
            Ok(json) => {
                out.push_str(RETURN);
                out.push_str(json.as_str());
                write_end(self.id.as_ref(), out);
            }
            Err(error) => write_error(self.id.as_ref(), error, out),
        }
        layout.finish(out, from);
    }

    /// Like [`write`](Response::write), but reuses the result's buffer, which usually has room for the
    /// rest.
    #[inline]
    pub fn into_text(self, layout: Layout) -> String {
        let mut text = match self.result {
            Ok(json) => {
                let mut text = json.into_return();
                write_end(self.id.as_ref(), &mut text);
                text
            }
            Err(error) => {
                let mut text = String::with_capacity(USUAL_SIZE);
                write_error(self.id.as_ref(), &error, &mut text);
                text
            }
        };
        layout.finish(&mut text, 0);
        text
    }
}

/// Writes what follows the result of a successful command.
#[inline]
fn write_end(id: Option<&Value>, out: &mut String) {
    if let Some(id) = id {
        out.push_str(", \"id\": ");
        Json::write_value(id, out);
    }
    out.push('}');
}

#[cold]
fn write_error(id: Option<&Value>, error: &Error, out: &mut String) {
    out.push('{');
    if let Some(id) = id {
        out.push_str("\"id\": ");
        Json::write_value(id, out);
        out.push_str(", ");
    }
    out.push_str("\"error\": {\"class\": \"");
    out.push_str(error.class.name());
    out.push_str("\", \"desc\": ");
    Json::write_string(&error.desc, out);
    out.push_str("}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_buffer_has_the_text_that_is_written() {
        let results = [
            Ok(Json::EMPTY_OBJECT),
            Ok(Json::encode(&vec!["x"; 100]).unwrap()),
            Ok(Json::encode(&[1, 2]).unwrap().retain_elements(|index| index > 0)),
            Err(Error::generic("d")),
        ];
        for result in results {
            for layout in [Layout::Compact, Layout::Pretty, Layout::LineFeed] {
                let response = Response::new(Some("id".into()), result.clone());
                let mut text = String::new();
                response.write(layout, &mut text);
                assert_eq!(response.into_text(layout), text);
            }
        }
    }
}
