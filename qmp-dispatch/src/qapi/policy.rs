// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of what is deprecated or unstable.

use std::process;

use qmp_proto::{Error, ErrorClass};

/// What becomes of commands, members, values and events that have the feature `deprecated` or
/// `unstable`. By default, they are like any other.
///
/// Testers of management software reject and hide them, and so find out what it still relies on.
/// Mirrors `CompatPolicy` of `qapi/compat.json`, which is QEMU's option `-compat`.
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
    /// For what is deprecated, and a client sends.
    pub deprecated_input: InputPolicy,
    /// For what is deprecated, and a client would be sent.
    pub deprecated_output: OutputPolicy,
    /// For what is unstable, and a client sends.
    pub unstable_input: InputPolicy,
    /// For what is unstable, and a client would be sent.
    pub unstable_output: OutputPolicy,
}

/// What becomes of commands, members and values that a client should not send.
///
/// ```
/// use qmp_dispatch::qapi::{InputPolicy, Policy};
/// use qmp_dispatch::{Context, LocalClient, Registry, proto::Error};
///
/// let mut registry = Registry::new();
/// registry.command("x-probe", |_: &Context| Ok::<(), Error>(()))?.unstable();
/// registry.set_policy(Policy { unstable_input: InputPolicy::Reject, ..Policy::default() });
/// let said = LocalClient::new(registry).ask("{'execute': 'x-probe'}");
/// assert!(said[0].contains("Unstable command x-probe disabled by policy"));
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
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

/// What becomes of members and events that a client should not rely on.
///
/// ```
/// use qmp_dispatch::qapi::{OutputPolicy, Policy};
/// use qmp_dispatch::{EventType, LocalClient, Registry};
///
/// const OLD: EventType<()> = EventType::new("OLD");
///
/// let mut registry = Registry::new();
/// registry.event(&OLD)?.deprecated();
/// registry.set_policy(Policy { deprecated_output: OutputPolicy::Hide, ..Policy::default() });
/// let client = LocalClient::new(registry);
/// client.monitor().dispatcher().emit(&OLD, &()).unwrap();
/// assert!(client.ask("").is_empty());
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
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

    /// Whether a command may be executed, going by its features. To be asked as soon as the command
    /// has been found, before anything else is checked.
    ///
    /// # Errors
    ///
    /// `CommandNotFound` if the policy rejects it.
    ///
    /// ```
    /// use qmp_dispatch::qapi::{InputPolicy, Policy};
    ///
    /// let policy = Policy { unstable_input: InputPolicy::Reject, ..Policy::default() };
    /// assert_eq!(
    ///     policy.check_command("x-query-roms", &["unstable"]).unwrap_err().to_string(),
    ///     "CommandNotFound: Unstable command x-query-roms disabled by policy"
    /// );
    /// assert!(policy.check_command("drive-backup", &["deprecated"]).is_ok());
    /// ```
    pub fn check_command<F: AsRef<str>>(&self, name: &str, features: &[F]) -> Result<(), Error> {
        self.check(ErrorClass::CommandNotFound, "command", name, features)
    }

    /// Whether clients are sent an event, going by its features.
    ///
    /// ```
    /// use qmp_dispatch::qapi::{OutputPolicy, Policy};
    ///
    /// let policy = Policy { deprecated_output: OutputPolicy::Hide, ..Policy::default() };
    /// assert!(!policy.shows_event(&["deprecated"]));
    /// assert!(policy.shows_event(&["unstable"]) && !policy.shows_everything());
    /// ```
    pub fn shows_event<F: AsRef<str>>(&self, features: &[F]) -> bool {
        self.shows(features)
    }

    /// Whether nothing is left out of what clients are sent.
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
