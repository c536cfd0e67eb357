// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error responses: a class that programs act on, and a description for people.

use std::borrow::Cow;
use std::fmt;
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
