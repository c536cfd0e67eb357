// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparing what our server and QEMU think of arguments.

use qmp_proto::Dialect;

use super::answers::every_time;
use super::batches::{Batch, Options, Outcome, share_out};
use super::model::Mode;
use super::peer::{Peer, Subject};
use super::shrink::shrink;
use crate::inputs::{Random, arguments};
use crate::json::Json;
use crate::schema::{Schema, is_downstream};

/// The mux limits what it keeps about a descriptor.
const LONGEST_DESCRIPTOR_NAME: usize = 255;

/// Whether QEMU and our server must answer the request with the same words, and remain as they are: it names a command
/// of the schema, and its arguments keep that from doing or telling anything that is not common to both.
fn is_comparable(request: &Json, schema: &Schema) -> bool {
    let name = request.get("execute").and_then(Json::as_str).unwrap_or_default();
    if is_downstream(name) || !schema.commands().any(|command| command == name) {
        return false;
    }
    let given: &[_] = match request.get("arguments") {
        Some(Json::Object(given)) => given,
        _ => &[],
    };
    match name {
        // The mux does not pass on longer names.
        "getfd" | "closefd" => given.iter().all(|(_, value)| {
            value.as_str().is_none_or(|name| name.len() <= LONGEST_DESCRIPTOR_NAME)
        }),
        // Refused with a CPU, as there is none, and with what is unexpected.
        "human-monitor-command" => given.iter().any(|(name, _)| name != "command-line"),
        // Patterns match other trace points there.
        "trace-event-get-state" | "trace-event-set-state" => given.iter().all(|(name, value)| {
            name != "name" || value.as_str().is_none_or(|name| !name.contains('*'))
        }),
        _ => !given.is_empty() || !schema.members(schema.arguments_of(name)).is_empty(),
    }
}

/// The servers to compare, and the types of the arguments.
struct Pair {
    theirs: Peer,
    ours: Peer,
    schema: Schema,
}

impl Pair {
    fn start(dialect: Dialect, subject: Subject) -> Result<Self, String> {
        let (theirs, ours) = (Peer::machine(dialect)?, subject.start(dialect, Peer::machine)?);
        let query = b"{'execute': 'query-qmp-schema'}";
        let lines = Peer::our_server(dialect)?.answers(Mode::Negotiated, query)?.concat();
        let answer = Json::parse(lines.trim_end()).map_err(|error| error.to_string())?;
        let schema = Schema::new(answer.get("return").ok_or("our server tells no schema")?);
        Ok(Self { theirs, ours, schema })
    }

    /// The requests that belong to `random`, a line each.
    fn generate(&self, random: &mut Random, len: u64) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        while (requests.len() as u64) < len {
            let request = arguments::request(&self.schema, random);
            if is_comparable(&request, &self.schema) {
                requests.push(format!("{request}\n").into_bytes());
            }
        }
        requests
    }

    fn compare(&self, requests: Vec<Vec<u8>>) -> Result<Outcome, String> {
        let count = requests.len() as u64;
        if self.mismatch(&requests)?.is_none() {
            return Ok(Outcome::Same { inputs: count, answers: count });
        }
        let is_comparable = |request: &Vec<u8>| {
            let text = str::from_utf8(request).unwrap_or_default();
            Json::parse(text).is_ok_and(|request| is_comparable(&request, &self.schema))
        };
        let requests = shrink(requests, |requests| {
            requests.iter().all(is_comparable) && matches!(self.mismatch(requests), Ok(Some(_)))
        });
        let mismatch = self.mismatch(&requests)?.unwrap_or_else(|| "not always".to_owned());
        let sent: String = requests
            .iter()
            .map(|request| format!("  sent     {}\n", String::from_utf8_lossy(request).trim_end()))
            .collect();
        Ok(Outcome::Different(format!("the errors differ\n{sent}{mismatch}")))
    }

    /// Where the two answer differently, every time.
    fn mismatch(&self, requests: &[Vec<u8>]) -> Result<Option<String>, String> {
        let bytes = requests.concat();
        every_time(|| {
            let [theirs, ours] = [&self.theirs, &self.ours]
                .map(|peer| Ok::<_, String>((peer, peer.answers(Mode::Negotiated, &bytes)?)));
            Ok(first_difference(theirs?, ours?))
        })
    }
}

fn first_difference(
    (theirs, their_lines): (&Peer, Vec<String>),
    (ours, our_lines): (&Peer, Vec<String>),
) -> Option<String> {
    let count = their_lines.len().max(our_lines.len());
    let at = (0..count).find(|&index| their_lines.get(index) != our_lines.get(index))?;
    let line = |peer: &Peer, lines: &[String]| {
        format!("  {:18} {:?}", peer.name(), lines.get(at).map_or("none", String::as_str))
    };
    Some(format!("answer {}:\n{}\n{}", at + 1, line(theirs, &their_lines), line(ours, &our_lines)))
}

/// Compares until the inputs are used up or a difference is found.
pub fn run(dialect: Dialect, options: &Options, subject: Subject) -> Result<Outcome, String> {
    let random = Random::new(options.seed);
    share_out(
        options,
        || Pair::start(dialect, subject),
        |pair, Batch { index, len }| pair.compare(pair.generate(&mut random.fork(index), len)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = include_str!("../../schema/qemu-10.0.jsonl");

    #[track_caller]
    fn check(request: &str, comparable: bool) {
        let request = Json::parse(request).unwrap();
        assert_eq!(is_comparable(&request, &Schema::parse(SCHEMA)), comparable, "{request}");
    }

    #[test]
    fn no_command_runs_that_does_or_tells_what_is_not_common() {
        check(r#"{"execute": "quit"}"#, false);
        check(r#"{"execute": "quit", "arguments": {}}"#, false);
        check(r#"{"execute": "quit", "arguments": {"a": 1}}"#, true);
        check(r#"{"execute": "set-action"}"#, true);
        check(r#"{"execute": "device_add", "arguments": {"a": 1}}"#, false);
        let hmp = r#"{"execute": "human-monitor-command", "arguments": "#;
        check(&format!(r#"{hmp}{{"command-line": "quit"}}}}"#), false);
        check(&format!(r#"{hmp}{{"command-line": "quit", "cpu-index": 0}}}}"#), true);
        check(&format!(r#"{hmp}{{"command-line": "quit", "a": 0}}}}"#), true);
        let trace = r#"{"execute": "trace-event-set-state", "arguments": "#;
        check(&format!(r#"{trace}{{"name": "*", "enable": true}}}}"#), false);
        check(&format!(r#"{trace}{{"name": "a", "enable": true}}}}"#), true);
    }
}
