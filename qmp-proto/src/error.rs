// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error responses: a class that programs act on, and a description for people.

use std::borrow::Cow;
use std::fmt;
use std::iter;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SyntaxError;

/// The class of an error response.
///
/// Mirrors `QapiErrorClass` of QEMU's `qapi/error.json`. The set is closed: all new errors of QEMU are
/// [generic](ErrorClass::GenericError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// An error that has no class of its own.
    GenericError,
    /// The command does not exist, is disabled, or is not allowed in this state of the monitor.
    CommandNotFound,
    /// The device has not been activated.
    DeviceNotActive,
    /// The device, or other instance named in the arguments, does not exist.
    DeviceNotFound,
    /// A feature of KVM that the command needs is missing.
    #[serde(rename = "KVMMissingCap")]
    KvmMissingCap,
}

impl ErrorClass {
    /// All classes, in QEMU's order.
    pub const ALL: [ErrorClass; 5] = [
        ErrorClass::GenericError,
        ErrorClass::CommandNotFound,
        ErrorClass::DeviceNotActive,
        ErrorClass::DeviceNotFound,
        ErrorClass::KvmMissingCap,
    ];

    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorClass::GenericError => "GenericError",
            ErrorClass::CommandNotFound => "CommandNotFound",
            ErrorClass::DeviceNotActive => "DeviceNotActive",
            ErrorClass::DeviceNotFound => "DeviceNotFound",
            ErrorClass::KvmMissingCap => "KVMMissingCap",
        }
    }
}

/// Reads the name on the wire.
impl FromStr for ErrorClass {
    type Err = UnknownErrorClass;

    fn from_str(name: &str) -> Result<ErrorClass, UnknownErrorClass> {
        Self::ALL.into_iter().find(|class| class.name() == name).ok_or(UnknownErrorClass(()))
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is not the name of an [`ErrorClass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an error class")]
pub struct UnknownErrorClass(());

/// The content of an error response. Displays as `Class: description`.
///
/// ```
/// use qmp_proto::{Error, ErrorClass};
///
/// let error = Error::new(ErrorClass::DeviceNotFound, "Device 'disk7' not found");
/// assert_eq!(error.to_string(), "DeviceNotFound: Device 'disk7' not found");
/// assert_eq!(Error::generic("no medium").class, ErrorClass::GenericError);
/// assert_eq!("KVMMissingCap".parse(), Ok(ErrorClass::KvmMissingCap));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{class}: {desc}")]
pub struct Error {
    /// The class, for programs.
    pub class: ErrorClass,
    /// The description, for people. QEMU promises nothing about its wording.
    pub desc: Cow<'static, str>,
}

impl Error {
    /// Creates an error of the given class.
    pub fn new(class: ErrorClass, desc: impl Into<Cow<'static, str>>) -> Error {
        Error { class, desc: desc.into() }
    }

    /// Creates an error of class [`ErrorClass::GenericError`].
    pub fn generic(desc: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorClass::GenericError, desc)
    }

    /// Creates QEMU's error for a command that does not exist.
    pub fn command_not_found(name: &str) -> Error {
        Error::new(ErrorClass::CommandNotFound, format!("The command {name} has not been found"))
    }
}

impl From<SyntaxError> for Error {
    fn from(error: SyntaxError) -> Error {
        Error::generic(error.to_string())
    }
}

/// Any error of Rust: what [`Error`] and all other error types convert to, and texts, too.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An [`Error`] is returned as it is. The description of any other error is its text, followed by those of its
/// [sources](std::error::Error::source): `outer: inner`. A source that the text before it ends with already is not
/// repeated.
///
/// The class is that of the first [`Error`] among them, or else [`ErrorClass::GenericError`]. An [`Error`] is
/// recognized by its text, `Class: description`, because errors that wrap another one transparently
/// ([`io::Error::other`](std::io::Error::other), for one) hide its type. The name of the class is left out of the
/// description.
///
/// ```
/// use std::io;
///
/// use qmp_proto::{BoxError, Error, ErrorClass};
///
/// let missing = Error::new(ErrorClass::DeviceNotFound, "Device 'disk7' not found");
/// assert_eq!(Error::from(BoxError::from(missing.clone())), missing);
/// assert_eq!(Error::from(BoxError::from(io::Error::other(missing.clone()))), missing);
/// assert_eq!(Error::from(BoxError::from("no medium")), Error::generic("no medium"));
/// ```
impl From<BoxError> for Error {
    fn from(error: BoxError) -> Error {
        match error.downcast() {
            Ok(error) => *error,
            Err(error) => describe(&*error),
        }
    }
}

/// Joins the texts of an error and its sources.
fn describe(error: &dyn std::error::Error) -> Error {
    let mut class = None;
    let mut desc = String::new();
    for error in iter::successors(Some(error), |error| error.source()) {
        let text = error.to_string();
        let before =
            desc.strip_suffix(&text).filter(|before| before.is_empty() || before.ends_with(": "));
        if let Some(before) = before {
            desc.truncate(before.len());
        } else if !desc.is_empty() {
            desc.push_str(": ");
        }
        let (found, text) = split_class(&text);
        class = class.or(found);
        desc.push_str(text);
    }
    Error::new(class.unwrap_or(ErrorClass::GenericError), desc)
}

/// Splits the text of an [`Error`]. Any other text is returned as it is.
fn split_class(text: &str) -> (Option<ErrorClass>, &str) {
    text.split_once(": ")
        .and_then(|(class, desc)| Some((Some(class.parse().ok()?), desc)))
        .unwrap_or((None, text))
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Wrapped {
        #[error(transparent)]
        Transparent(Error),
        #[error("cannot resize")]
        Source(#[source] BoxError),
        #[error("cannot reset")]
        Outer(#[source] BoxError),
        #[error("cannot resize: {0}")]
        SourceRepeated(#[source] BoxError),
    }

    fn convert(error: impl Into<BoxError>) -> Error {
        error.into().into()
    }

    fn not_found() -> Error {
        Error::new(ErrorClass::DeviceNotFound, "Device 'a' not found")
    }

    #[test]
    fn an_error_keeps_its_class_however_it_is_wrapped() {
        let texts = Error::generic("DeviceNotFound: this is only a text");
        for error in [not_found(), Error::generic("no medium"), texts] {
            assert_eq!(convert(error.clone()), error);
            assert_eq!(convert(io::Error::other(error.clone())), error);
            assert_eq!(convert(Wrapped::Transparent(error.clone())), error);
            assert_eq!(convert(BoxError::from(error.clone())), error);
            let desc = format!("cannot resize: {}", error.desc);
            for wrap in [Wrapped::Source, Wrapped::SourceRepeated] {
                assert_eq!(
                    convert(wrap(error.clone().into())),
                    Error::new(error.class, desc.clone())
                );
                let twice = Wrapped::Outer(wrap(error.clone().into()).into());
                let desc = format!("cannot reset: {desc}");
                assert_eq!(convert(twice), Error::new(error.class, desc));
            }
        }
    }

    #[test]
    fn errors_of_anyhow_keep_class_and_sources() {
        use anyhow::Context;

        let direct = anyhow::Error::from(not_found());
        assert_eq!(convert(direct), not_found());
        let outer = Err::<(), _>(not_found()).context("cannot eject").context("cannot reset");
        let desc = "cannot reset: cannot eject: Device 'a' not found";
        assert_eq!(convert(outer.unwrap_err()), Error::new(ErrorClass::DeviceNotFound, desc));
        assert_eq!(convert(anyhow::anyhow!("no medium")), Error::generic("no medium"));
    }

    #[test]
    fn other_errors_are_generic_with_their_sources() {
        assert_eq!(convert("no medium"), Error::generic("no medium"));
        assert_eq!(convert("no medium".to_owned()), Error::generic("no medium"));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(
            convert(Wrapped::Source(full.into())),
            Error::generic("cannot resize: no storage space")
        );
        assert_eq!(convert("cannot resize: "), Error::generic("cannot resize: "));
    }

    #[test]
    fn a_source_is_left_out_only_if_it_is_told_as_a_whole() {
        let inner = Wrapped::SourceRepeated("disk0".into());
        assert_eq!(convert(inner), Error::generic("cannot resize: disk0"));
        let inner = Wrapped::SourceRepeated(Wrapped::Source("e".into()).into());
        assert_eq!(convert(inner), Error::generic("cannot resize: cannot resize: e"));
        let inner = Wrapped::Source("size".into());
        assert_eq!(convert(inner), Error::generic("cannot resize: size"));
        let twice = Wrapped::Source(Wrapped::Source("size".into()).into());
        assert_eq!(convert(twice), Error::generic("cannot resize: size"));
    }

    proptest! {
        #[test]
        fn any_error_survives_transparent_wrapping(class in 0..5_usize, desc in ".*") {
            let error = Error::new(ErrorClass::ALL[class], desc);
            prop_assert_eq!(convert(Wrapped::Transparent(error.clone())), error.clone());
            prop_assert_eq!(convert(error.to_string()), error);
        }
    }
}
