// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of a case.

use std::time::Duration;

use super::case::Mode;
use crate::json::Json;

/// Large payloads are made in blocks of about this size.
const BLOCK_SIZE: usize = 1 << 20;

/// One step, on one of the case's connections.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the connection; `None` for the first one.
    pub on: Option<String>,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    Send(Send),
    /// `count` messages, each like one of the alternatives.
    Expect {
        /// Values with placeholders.
        alternatives: Vec<Json>,
        count: u64,
    },
    /// `count` messages, each exactly one of these texts.
    ExpectRaw {
        /// Texts with placeholders.
        alternatives: Vec<String>,
        count: u64,
    },
    /// An event with these members after its timestamp.
    ExpectEvent(Vec<(String, Json)>),
    ExpectGreeting,
    /// The messages of all streams, each stream in order, merged in any way.
    ExpectInterleaved(Vec<Vec<Json>>),
    /// Nothing comes for this long.
    ExpectSilence(Duration),
    /// The server closes the connection.
    ExpectEnd {
        /// Whether a connection reset will do.
        reset_allowed: bool,
    },
    /// The reply to a command of our own comes next.
    Sync,
    /// Runs a command for its effect.
    Do {
        command: Vec<(String, Json)>,
        /// Whether an error will do.
        may_fail: bool,
    },
    /// Brings the machine to a state, from any.
    Machine(MachineState),
    /// Ends the sending side.
    HalfClose,
    Close,
    /// Leaves and connects again.
    Reconnect(Mode),
    /// Makes one more connection.
    Connect {
        mode: Mode,
        name: String,
    },
    Sleep(Duration),
}

/// A state of the machine that a case can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    Prelaunch,
    Running,
    /// Stopped.
    Paused,
}

/// Bytes to send, and how.
#[derive(Clone, Debug)]
pub struct Send {
    pub payload: Payload,
    /// Number of descriptors that are sent with the first byte.
    pub descriptors: usize,
    /// Bytes per write; `None` for as many as go.
    pub chunk: Option<usize>,
    /// The pause between writes of chunks.
    pub pause: Duration,
}

/// The bytes that a step sends.
#[derive(Clone, Debug)]
pub enum Payload {
    /// These.
    Bytes(Vec<u8>),
    /// This text with captured values in place of `${name}`.
    Template(String),
    /// A text many times over.
    Repeated {
        /// Comes before.
        prefix: String,
        /// Comes `count` times.
        text: String,
        count: usize,
        /// Comes after.
        suffix: String,
    },
}

impl Payload {
    /// Hands the bytes over block by block; `fill_in` replaces the `${name}` in a template.
    pub fn for_each_block<E>(
        &self,
        fill_in: impl FnOnce(&str) -> Result<String, E>,
        mut take_block: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Bytes(bytes) => take_block(bytes),
            Self::Template(text) => take_block(fill_in(text)?.as_bytes()),
            Self::Repeated { prefix, text, count, suffix } => {
                take_block(prefix.as_bytes())?;
                let per_block = (BLOCK_SIZE / text.len().max(1)).max(1);
                let block = text.repeat(per_block.min(*count));
                let mut left = *count;
                while left > 0 {
                    let now = left.min(per_block);
                    take_block(&block.as_bytes()[..now * text.len()])?;
                    left -= now;
                }
                take_block(suffix.as_bytes())
            }
        }
    }
}

impl Step {
    /// How a connection starts that this step makes, if it makes one.
    pub fn mode(&self) -> Option<Mode> {
        match self.action {
            Action::Connect { mode, .. } | Action::Reconnect(mode) => Some(mode),
            _ => None,
        }
    }

    pub fn parse(step: &Json) -> Result<Self, String> {
        let Json::Object(members) = step else {
            return Err(format!("a step is an object, not {step}"));
        };
        let action = members.iter().find_map(|(key, value)| parse_action(key, value, step));
        Ok(Self {
            on: step.get("on").and_then(Json::as_str).map(str::to_owned),
            action: action
                .unwrap_or_else(|| Err("unknown".to_owned()))
                .map_err(|error| format!("{error}: {step}"))?,
        })
    }
}

/// Reads the action that `key` names, if it names one.
fn parse_action(key: &str, value: &Json, step: &Json) -> Option<Result<Action, String>> {
    let text = || value.as_str().ok_or_else(|| format!("{key} takes a string"));
    let duration = || {
        value.as_i64().map(|ms| Duration::from_millis(ms.unsigned_abs())).ok_or("not a duration")
    };
    Some(match key {
        "send" | "send_hex" | "send_repeat" => parse_send(key, value, step).map(Action::Send),
        "expect" => {
            count(step).map(|count| Action::Expect { alternatives: alternatives(value), count })
        }
        "expect_raw" => parse_expect_raw(value, step),
        "expect_event" => parse_expect_event(value),
        "expect_greeting" => Ok(Action::ExpectGreeting),
        "expect_interleaved" => parse_interleaved(value),
        "expect_silence_ms" => duration().map(Action::ExpectSilence).map_err(str::to_owned),
        "expect_eof" => Ok(Action::ExpectEnd { reset_allowed: value.as_str() == Some("any") }),
        "sync" => Ok(Action::Sync),
        "do" => parse_do(value, step),
        "machine" => text().and_then(parse_machine_state).map(Action::Machine),
        "half_close" => Ok(Action::HalfClose),
        "close" => Ok(Action::Close),
        "reconnect" => text().and_then(Mode::parse).map(Action::Reconnect),
        "connect" => {
            let name = step.get("as").and_then(Json::as_str).unwrap_or("other").to_owned();
            text().and_then(Mode::parse).map(|mode| Action::Connect { mode, name })
        }
        "sleep_ms" => duration().map(Action::Sleep).map_err(str::to_owned),
        "record" => Err("not recorded yet".to_owned()),
        _ => return None,
    })
}

fn parse_send(key: &str, value: &Json, step: &Json) -> Result<Send, String> {
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    let payload = match key {
        "send_hex" => text(Some(value)).and_then(|digits| from_hex(&digits)).map(Payload::Bytes),
        "send_repeat" => match (text(value.get("text")), number(value, "count")?) {
            (Some(unit), Some(count)) => Some(Payload::Repeated {
                prefix: text(value.get("prefix")).unwrap_or_default(),
                text: unit,
                count,
                suffix: text(value.get("suffix")).unwrap_or_default(),
            }),
            _ => None,
        },
        _ if step.get("subst") == Some(&Json::Bool(true)) => {
            text(Some(value)).map(Payload::Template)
        }
        _ => text(Some(value)).map(|text| Payload::Bytes(text.into_bytes())),
    };
    Ok(Send {
        payload: payload.ok_or("nothing to send")?,
        descriptors: number(step, "fds")?.unwrap_or(0),
        chunk: number(step, "chunk")?.filter(|&size| size > 0),
        pause: Duration::from_millis(number(step, "delay_ms")?.unwrap_or(0)),
    })
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect()
}

/// `{"any_of": [...]}` stands for its elements, anything else for itself.
fn alternatives(value: &Json) -> Vec<Json> {
    match value {
        Json::Object(members) if members.len() == 1 => match value.get("any_of") {
            Some(Json::Array(elements)) => elements.clone(),
            _ => vec![value.clone()],
        },
        _ => vec![value.clone()],
    }
}

fn parse_expect_raw(value: &Json, step: &Json) -> Result<Action, String> {
    let listed = match value {
        Json::Array(elements) => elements.clone(),
        _ => alternatives(value),
    };
    let texts =
        listed.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    Ok(Action::ExpectRaw {
        alternatives: texts.ok_or("expect_raw takes texts")?,
        count: count(step)?,
    })
}

fn parse_expect_event(value: &Json) -> Result<Action, String> {
    match value {
        Json::String(_) => Ok(Action::ExpectEvent(vec![("event".to_owned(), value.clone())])),
        Json::Object(members) => Ok(Action::ExpectEvent(members.clone())),
        _ => Err("expect_event takes a name or an object".to_owned()),
    }
}

fn parse_interleaved(value: &Json) -> Result<Action, String> {
    let streams = value
        .as_array()
        .unwrap_or_default()
        .iter()
        .map(|stream| stream.as_array().map(<[_]>::to_vec));
    let streams = streams.collect::<Option<Vec<_>>>().ok_or("expect_interleaved takes lists")?;
    Ok(Action::ExpectInterleaved(streams))
}

fn parse_do(value: &Json, step: &Json) -> Result<Action, String> {
    let command = match value {
        Json::String(_) => vec![("execute".to_owned(), value.clone())],
        Json::Object(members) => members.clone(),
        _ => return Err("do takes a name or a command".to_owned()),
    };
    Ok(Action::Do { command, may_fail: step.get("may_fail") == Some(&Json::Bool(true)) })
}

fn parse_machine_state(name: &str) -> Result<MachineState, String> {
    Ok(match name {
        "prelaunch" => MachineState::Prelaunch,
        "running" => MachineState::Running,
        "paused" => MachineState::Paused,
        _ => return Err(format!("unknown machine state '{name}'")),
    })
}

fn count(step: &Json) -> Result<u64, String> {
    Ok(number(step, "count")?.unwrap_or(1))
}

/// The non-negative integer that is the member `name`, if there is one.
pub(super) fn number<T: std::str::FromStr>(object: &Json, name: &str) -> Result<Option<T>, String> {
    match object.get(name) {
        None => Ok(None),
        Some(Json::Number(text)) => {
            text.parse().map(Some).map_err(|_| format!("{name} cannot be {text}"))
        }
        Some(_) => Err(format!("{name} is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(payload: &Payload) -> Vec<usize> {
        let mut sizes = Vec::new();
        let take = |block: &[u8]| {
            sizes.push(block.len());
            Ok::<_, ()>(())
        };
        payload.for_each_block(|text| Ok(text.to_owned()), take).unwrap();
        sizes
    }

    #[test]
    fn repeated_text_comes_in_blocks() {
        let step =
            r#"{"send_repeat": {"prefix": "[", "text": "abc", "count": 700000, "suffix": "]!"}}"#;
        let step = Step::parse(&Json::parse(step).unwrap()).unwrap();
        let Action::Send(send) = step.action else { panic!("not a send step") };
        let sizes = blocks(&send.payload);
        assert_eq!(sizes.iter().sum::<usize>(), 1 + 3 * 700_000 + 2);
        assert!(sizes.iter().all(|&size| size <= BLOCK_SIZE));
    }

    #[test]
    fn hexadecimal_bytes() {
        assert_eq!(from_hex("00 fF7f"), Some(vec![0, 255, 127]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }

    #[test]
    fn a_step_that_nobody_knows_is_refused() {
        for step in [
            "{}",
            "{\"on\": \"p\"}",
            "{\"expects\": 1}",
            "{\"record\": true}",
            "{\"machine\": \"on\"}",
            "[]",
        ] {
            assert!(Step::parse(&Json::parse(step).unwrap()).is_err(), "{step}");
        }
    }
}
