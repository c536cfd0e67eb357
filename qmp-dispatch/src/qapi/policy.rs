// SPDX-License-Identifier: MIT OR Apache-2.0
//! Policies for what is deprecated or unstable.

use std::process;

use qmp_proto::{Error, ErrorClass};

/// A policy for commands, members, values and events that have the feature `deprecated` or `unstable`. By
/// default, they are treated like any other.
///
/// Rejecting and hiding them shows what management software still relies on. Mirrors `CompatPolicy` of `qapi/compat.json`, which is QEMU's option `-compat`.
///
/// ```
/// use qmp_dispatch::qapi::{InputPolicy, Policy, arguments_of};
/// use qmp_proto::{Object, Value};
///
/// #[derive(schemars::JsonSchema)]
/// struct Eject {
///     #[deprecated]
///     device: Option<String>,
///     id: Option<String>,
/// }
///
/// let policy = Policy { deprecated_input: InputPolicy::Reject, ..Policy::default() };
/// let arguments = Object::from_iter([("device", Value::from("disk0"))]);
/// let refused = arguments_of::<Eject>()?.check_with(&policy, &arguments).unwrap_err();
/// assert_eq!(refused.desc, "Deprecated parameter device disabled by policy");
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// For deprecated input from clients.
    pub deprecated_input: InputPolicy,
    /// For deprecated output to clients.
    pub deprecated_output: OutputPolicy,
    /// For unstable input from clients.
    pub unstable_input: InputPolicy,
    /// For unstable output to clients.
    pub unstable_output: OutputPolicy,
}

/// How commands, members and values are treated that a client should not send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InputPolicy {
    /// They are accepted.
    #[default]
    Accept,
    /// The request is answered with an error.
    Reject,
    /// The process ends by [`process::abort`], after a message to the log. For debugging: what
    /// made the client send this is still going on.
    Crash,
}

/// How members and events are treated that a client should not rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputPolicy {
    /// They are sent.
    #[default]
    Accept,
    /// They are left out.
    Hide,
}

impl Policy {
    /// Accepts and shows everything, as the default.
    pub(crate) const LENIENT: Policy = Policy {
        deprecated_input: InputPolicy::Accept,
        deprecated_output: OutputPolicy::Accept,
        unstable_input: InputPolicy::Accept,
        unstable_output: OutputPolicy::Accept,
    };

    /// Checks whether a command with these features may be executed. To be called before anything else about the
    /// request is checked.
    ///
    /// # Errors
    ///
    /// `CommandNotFound` if the policy rejects it.
    pub fn check_command<F: AsRef<str>>(&self, name: &str, features: &[F]) -> Result<(), Error> {
        self.check(ErrorClass::CommandNotFound, "command", name, features)
    }

    /// Whether an event with these features is sent to clients.
    pub fn shows_event<F: AsRef<str>>(&self, features: &[F]) -> bool {
        self.shows(features)
    }

    /// Whether nothing is hidden from clients.
    pub fn shows_everything(&self) -> bool {
        [self.deprecated_output, self.unstable_output] == [OutputPolicy::Accept; 2]
    }

    pub(crate) fn check_member(&self, name: &str, features: &[String]) -> Result<(), Error> {
        self.check(ErrorClass::GenericError, "parameter", name, features)
    }

    pub(crate) fn check_value(&self, name: &str, features: &[String]) -> Result<(), Error> {
        self.check(ErrorClass::GenericError, "value", name, features)
    }

    pub(crate) fn shows<F: AsRef<str>>(&self, features: &[F]) -> bool {
        let hides = |policy, feature| policy == OutputPolicy::Hide && has(features, feature);
        !hides(self.deprecated_output, "deprecated") && !hides(self.unstable_output, "unstable")
    }

    /// Whether introspection shows an entity or member. QEMU hides what is deprecated from it, and
    /// never what is unstable.
    pub(crate) fn describes(&self, features: &[String]) -> bool {
        self.deprecated_output == OutputPolicy::Accept || !has(features, "deprecated")
    }

    #[inline]
    fn check<F: AsRef<str>>(
        &self,
        class: ErrorClass,
        kind: &str,
        name: &str,
        features: &[F],
    ) -> Result<(), Error> {
        // Most have none, and this is asked for each command, member and value.
        if features.is_empty() {
            return Ok(());
        }
        self.check_features(class, kind, name, features)
    }

    fn check_features<F: AsRef<str>>(
        &self,
        class: ErrorClass,
        kind: &str,
        name: &str,
        features: &[F],
    ) -> Result<(), Error> {
        for (feature, adjective, policy) in [
            ("deprecated", "Deprecated", self.deprecated_input),
            ("unstable", "Unstable", self.unstable_input),
        ] {
            if policy == InputPolicy::Accept || !has(features, feature) {
                continue;
            }
            if policy == InputPolicy::Crash {
                tracing::error!("{adjective} {kind} {name} ends the process by policy");
                process::abort();
            }
            let desc = format!("{adjective} {kind} {name} disabled by policy");
            return Err(Error::new(class, desc));
        }
        Ok(())
    }
}

fn has<F: AsRef<str>>(features: &[F], wanted: &str) -> bool {
    features.iter().any(|feature| feature.as_ref() == wanted)
}
