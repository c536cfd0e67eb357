// SPDX-License-Identifier: MIT OR Apache-2.0
//! What servers answer to a command.

use crate::{Error, Json, Layout, Value};

/// The answer to one request: success or error, with the id of the request if it had one.
///
/// A command without success response (QAPI's `'success-response': false`) has no `Response` when
/// it succeeds.
///
/// ```
/// use qmp_proto::{Error, Json, Layout, Response};
///
/// let mut out = String::new();
/// Response { id: Some(7.into()), result: Ok(Json::EMPTY_OBJECT) }.write(Layout::Compact, &mut out);
/// Response { id: None, result: Err(Error::generic("no medium")) }.write(Layout::Compact, &mut out);
/// assert_eq!(
///     out,
///     "{\"return\": {}, \"id\": 7}\r\n\
///      {\"error\": {\"class\": \"GenericError\", \"desc\": \"no medium\"}}\r\n"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The id of the request.
    pub id: Option<Value>,
    /// What the command returned, or what went wrong.
    pub result: Result<Json, Error>,
}

impl Response {
    /// Appends the response as QEMU writes it, ended by CR LF.
    pub fn write(&self, layout: Layout, out: &mut String) {
        let from = out.len();
        match &self.result {
            Ok(json) => {
                out.push_str("{\"return\": ");
                out.push_str(json.as_str());
                if let Some(id) = &self.id {
                    out.push_str(", \"id\": ");
                    Json::write_value(id, out);
                }
                out.push('}');
            }
            Err(error) => {
                out.push('{');
                if let Some(id) = &self.id {
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
        }
        layout.finish(out, from);
    }
}
