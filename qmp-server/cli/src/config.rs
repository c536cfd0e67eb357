// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that know where they were written, and mistakes that have a line.
//!
//! A mistake is reported as `FILE:LINE: KEY: what is wrong`, like those of compilers.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;
use toml::Spanned;

use crate::Failure;

/// Reads what somebody has said while the program runs as a file is read.
pub(crate) fn read_said<T: DeserializeOwned>(text: &str) -> Result<Sourced<T>, Failure> {
    let value = parse(text).map_err(|mistake| Failure::usage(mistake.what))?;
    // There is no file to be named.
    Ok(Sourced { value, source: Source::Span(0..0) })
}

/// The file that is being read, and the machine of which it speaks.
pub(crate) struct ConfigFile<'a> {
    pub(crate) path: &'a Path,
    /// Where its lines end.
    pub(crate) ends: &'a [usize],
    pub(crate) machine: Option<String>,
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) line: usize,
    pub(crate) what: String,
}

pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    let mistake = |key: &str, error: &toml::de::Error| Mistake {
        line: line_at(text, error.span()),
        what: format!("{key}{}", error.message()),
    };
    let document = toml::Deserializer::parse(text).map_err(|error| match error.message() {
        // This one keeps its key to itself.
        "duplicate key" => mistake(&format!("{}: ", &text[error.span().unwrap_or(0..0)]), &error),
        _ => mistake("", &error),
    })?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = key(error.path());
        let key = if key.is_empty() { key } else { format!("{key}: ") };
        mistake(&key, error.inner())
    })
}

fn line_at(text: &str, span: Option<Range<usize>>) -> usize {
    let before = span.map_or(0, |span| span.start).min(text.len());
    1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count()
}

/// The path of a key, without what stands there for the sake of [`Spanned`].
fn key(path: &serde_path_to_error::Path) -> String {
    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Map { key: name } if name.starts_with("$__") => {}
            Segment::Map { key: name } if key.is_empty() => key.push_str(name),
            Segment::Map { key: name } => key.push_str(&format!(".{name}")),
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    key
}

/// A value that knows where it was written, for mistakes that show later.
#[derive(Clone, Debug)]
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    source: Source,
}

/// Wherever they were written.
impl<T: PartialEq> PartialEq for Sourced<T> {
    fn eq(&self, other: &Sourced<T>) -> bool {
        self.value == other.value
    }
}

#[derive(Clone, Debug)]
enum Source {
    CommandLine,
    /// Somewhere in the file that is being read, or in what was said while the program runs.
    Span(Range<usize>),
    Line {
        path: PathBuf,
        line: usize,
        machine: Option<String>,
    },
}

impl<T> Sourced<T> {
    /// Says in which line of the file that is.
    pub(crate) fn locate(&mut self, place: &ConfigFile<'_>) {
        if let Source::Span(span) = &self.source {
            let line = 1 + place.ends.partition_point(|&end| end < span.start);
            let (path, machine) = (place.path.to_owned(), place.machine.clone());
            self.source = Source::Line { path, line, machine };
        }
    }

    /// Says that something is wrong with this value, and where it is.
    pub(crate) fn blame(&self, key: &str, error: impl Display) -> Failure {
        match &self.source {
            Source::Line { path, line, machine: None } => {
                Failure::usage(format_args!("{}:{line}: {key}: {error}", path.display()))
            }
            Source::Line { path, line, machine: Some(name) } => {
                let path = path.display();
                Failure::usage(format_args!("{path}:{line}: machine '{name}': {key}: {error}"))
            }
            Source::Span(_) => Failure::usage(format_args!("{key}: {error}")),
            Source::CommandLine => Failure::usage(error),
        }
    }
}

/// As from the command line.
impl<T> From<T> for Sourced<T> {
    fn from(value: T) -> Sourced<T> {
        Sourced { value, source: Source::CommandLine }
    }
}

impl<T: FromStr> FromStr for Sourced<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Sourced<T>, T::Err> {
        Ok(text.parse::<T>()?.into())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sourced<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sourced<T>, D::Error> {
        let spanned = Spanned::deserialize(deserializer)?;
        Ok(Sourced { source: Source::Span(spanned.span()), value: spanned.into_inner() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ServerOptions;

    #[track_caller]
    fn check(text: &str, line: usize, what: &str) {
        let mistake = parse::<ServerOptions>(text).unwrap_err();
        assert_eq!(mistake, Mistake { line, what: what.to_owned() });
    }

    #[test]
    fn mistakes_have_a_line_and_a_key() {
        check("insecure = 'yes'", 1, r#"insecure: invalid type: string "yes", expected a boolean"#);
        check("log = 'xml'", 1, "log: unknown variant `xml`, expected `text` or `json`");
        check(
            "\nallow-user = [1]",
            2,
            "allow-user[0]: invalid type: integer `1`, expected a string",
        );
        check(
            "allow-user = [\n'0',\n'no such user']",
            3,
            "allow-user[1]: there is no user 'no such user'",
        );
        check("trace = ['*', 'x*']", 1, "trace[1]: there is no trace point 'x*'");
        check("insecure=true\ninsecure=true", 2, "insecure: duplicate key");
        check("[serve]\nname = 'x", 2, "invalid literal string, expected `'`");
        check("serve=true", 1, "serve: invalid type: boolean `true`, expected a table");
        check(
            "[serve]\nuuid = 'x'",
            2,
            "serve.uuid: expected a UUID like 550e8400-e29b-41d4-a716-446655440000",
        );
        check(
            "\n[serve]\ninsecure=true",
            3,
            "serve.insecure: unknown field `insecure`, expected one of `name`, `uuid`, `paused`, `dialect`",
        );
    }

    #[test]
    fn mistakes_in_addresses_have_a_line_and_a_key() {
        check("listen = [\n'unix:a',\n'unix:']", 3, "listen[1]: 'unix:': the path is missing");
        check(
            "[[listen]]\naddress='unix:a'\nmode = 'rw'",
            3,
            "listen[0].mode: 'rw' is not a mode like 0660",
        );
        check("\n[[listen]]\nmode = '0660'", 2, "listen[0]: the address is missing");
    }

    #[test]
    fn what_shows_later_has_a_line_too() {
        let text = "\nlisten = ['unix:a',\n'unix:b']";
        let mut options: ServerOptions = parse(text).unwrap();
        let listen = &mut options.listen[1];
        let ends = [0, text.find(",\n").unwrap() + 1];
        listen.locate(&ConfigFile { path: Path::new("dir/file.toml"), ends: &ends, machine: None });
        let failure = listen.blame("listen", "no room").to_string();
        assert_eq!(failure, "qmp-server: dir/file.toml:3: listen: no room");
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = "listen = ['unix:a', 'unix:b']\ninsecure = true\ntrace = ['*']
            [serve]\nname = 'file'\npaused = true";
        let file: ServerOptions = parse(file).unwrap();
        let flags = "listen = ['unix:c']\ninsecure = false\n[serve]\nname = 'flag'";
        let flags: ServerOptions = parse(flags).unwrap();
        let options = flags.or(file);
        assert_eq!(options.listen.len(), 1);
        assert_eq!(options.insecure, Some(false));
        assert_eq!(options.trace.len(), 1);
        assert_eq!(options.serve.name.as_deref(), Some("flag"));
        assert_eq!(options.serve.paused, Some(true));
    }
}
