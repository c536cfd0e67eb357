// SPDX-License-Identifier: MIT OR Apache-2.0
//! Declaring commands as types.

/// Declares commands as types, which implement [`CommandType`](crate::CommandType).
///
/// A declaration is the name of the type, the name on the wire, what the command takes, and what it returns. What it
/// takes is one of these:
///
/// - members in braces: the type is a struct of these, and is the type of the arguments itself. It derives `Serialize`
///   and `Deserialize`, by way of this crate. Names on the wire are in `kebab-case`, and an `Option` that is `None` is
///   not written.
/// - a type in parentheses, or none.
///
/// Without `-> Result`, the command returns `()`. A doc comment becomes the documentation, and
/// `#[features("unstable")]` the features; other attributes are those of the type.
///
/// ```
/// use qmp_proto::{CommandType, command_types};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// pub struct StatusInfo {
///     running: bool,
/// }
///
/// command_types! {
///     /// Ejects the medium of a drive.
///     ///
///     /// Asks the guest first.
///     #[derive(Debug)]
///     pub Eject = "eject" {
///         id: String,
///         /// Does not ask the guest.
///         force: Option<bool>,
///     };
///
///     pub QueryStatus = "query-status"() -> StatusInfo;
///
///     /// Ejects the medium of a drive again.
///     #[features("unstable")]
///     pub EjectAgain = "x-eject-again"(Eject);
/// }
///
/// let documentation = "Ejects the medium of a drive.\n\nAsks the guest first.";
/// assert_eq!(Eject::DOCUMENTATION, Some(documentation));
/// let eject = Eject { id: "cd0".to_owned(), force: None };
/// assert_eq!(EjectAgain::encode_arguments(&eject)?.unwrap().as_str(), r#"{"id": "cd0"}"#);
/// assert_eq!(EjectAgain::FEATURES, ["unstable"]);
/// assert_eq!((QueryStatus::NAME, QueryStatus::DOCUMENTATION), ("query-status", None));
/// assert!(QueryStatus::encode_arguments(&())?.is_none());
/// # Ok::<(), qmp_proto::EncodeError>(())
/// ```
#[macro_export]
macro_rules! command_types {
    ($($commands:tt)*) => { $crate::__command_types! { [$crate::__arguments] $($commands)* } };
}

/// Like [`command_types!`], and says first which macro declares the structs.
#[doc(hidden)]
#[macro_export]
macro_rules! __command_types {
    ($declare:tt $(
        $(#[$($attribute:tt)*])*
        $vis:vis $type:ident = $name:literal $arguments:tt $(-> $result:ty)?;
    )*) => {$(
        $crate::__command_type! {
            $declare [] [] [] [$(#[$($attribute)*])*] $vis $type $name $arguments [$($result)?]
        }
    )*};
}

/// Takes one attribute after the other: documentation, features, others.
#[doc(hidden)]
#[macro_export]
macro_rules! __command_type {
    (
        $declare:tt [$($doc:literal)*] $features:tt [$($other:tt)*]
        [#[doc = $text:literal] $($rest:tt)*] $($command:tt)*
    ) => {
        $crate::__command_type! {
            $declare [$($doc)* $text] $features [$($other)* #[doc = $text]] [$($rest)*] $($command)*
        }
    };
    (
        $declare:tt $doc:tt [$($feature:literal)*] $other:tt
        [#[features($($new:literal),* $(,)?)] $($rest:tt)*] $($command:tt)*
    ) => {
        $crate::__command_type! {
            $declare $doc [$($feature)* $($new)*] $other [$($rest)*] $($command)*
        }
    };
    (
        $declare:tt $doc:tt $features:tt [$($other:tt)*]
        [#[$($attribute:tt)*] $($rest:tt)*] $($command:tt)*
    ) => {
        $crate::__command_type! {
            $declare $doc $features [$($other)* #[$($attribute)*]] [$($rest)*] $($command)*
        }
    };
    (
        [$($declare:tt)*] $doc:tt $features:tt [$($other:tt)*] []
        $vis:vis $type:ident $name:literal { $($members:tt)* } $result:tt
    ) => {
        $($declare)*! {
            $($other)*
            $vis struct $type { $($members)* }
        }

        $crate::__impl_command_type! { $type $name [$type] $result $features $doc }
    };
    (
        $declare:tt $doc:tt $features:tt [$($other:tt)*] []
        $vis:vis $type:ident $name:literal ($($arguments:ty)?) $result:tt
    ) => {
        $($other)*
        $vis struct $type;

        $crate::__impl_command_type! { $type $name [$($arguments)?] $result $features $doc }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __impl_command_type {
    (
        $type:ident $name:literal [$($arguments:ty)?] [$($result:ty)?]
        [$($feature:literal)*] [$($doc:literal)*]
    ) => {
        impl $crate::CommandType for $type {
            const NAME: &'static str = $name;
            const FEATURES: &'static [&'static str] = &[$($feature),*];
            const DOCUMENTATION: ::core::option::Option<&'static str> = {
                const LINES: &[&str] = &[$($doc),*];
                const TEXT: [u8; $crate::doc::size(LINES)] = $crate::doc::join(LINES);
                $crate::doc::text(&TEXT)
            };

            type Arguments = $crate::__or_unit!($($arguments)?);
            type Result = $crate::__or_unit!($($result)?);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __or_unit {
    () => {
        ()
    };
    ($type:ty) => {
        $type
    };
}

/// Declares a struct of arguments. Takes one member after the other.
#[doc(hidden)]
#[macro_export]
macro_rules! __arguments {
    (
        @ $head:tt [$($done:tt)*]
        $(#[$attribute:meta])* $vis:vis $name:ident: Option<$type:ty> $(, $($rest:tt)*)?
    ) => {
        $crate::__arguments! {
            @ $head [
                $($done)*
                #[serde(skip_serializing_if = "Option::is_none")]
                $(#[$attribute])* $vis $name: Option<$type>,
            ]
            $($($rest)*)?
        }
    };
    (
        @ $head:tt [$($done:tt)*]
        $(#[$attribute:meta])* $vis:vis $name:ident: $type:ty $(, $($rest:tt)*)?
    ) => {
        $crate::__arguments! {
            @ $head [$($done)* $(#[$attribute])* $vis $name: $type,] $($($rest)*)?
        }
    };
    (@ { $(#[$attribute:meta])* $vis:vis struct $type:ident } [$($members:tt)*]) => {
        #[derive($crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "qmp_proto::serde", rename_all = "kebab-case")]
        $(#[$attribute])*
        $vis struct $type { $($members)* }
    };
    ($(#[$attribute:meta])* $vis:vis struct $type:ident { $($members:tt)* }) => {
        $crate::__arguments! { @ { $(#[$attribute])* $vis struct $type } [] $($members)* }
    };
}

/// Joins the lines of a doc comment when it is compiled.
#[doc(hidden)]
pub mod doc {
    /// Returns the length of the joined lines.
    pub const fn size(lines: &[&str]) -> usize {
        let (mut size, mut at) = (0, 0);
        while at < lines.len() {
            size += unindented(lines[at]).len() + (at > 0) as usize;
            at += 1;
        }
        size
    }

    /// Joins the lines, without the space before each.
    pub const fn join<const SIZE: usize>(lines: &[&str]) -> [u8; SIZE] {
        let mut text = [b'\n'; SIZE];
        let (mut end, mut at) = (0, 0);
        while at < lines.len() {
            end += (at > 0) as usize;
            let line = unindented(lines[at]);
            let mut from = 0;
            while from < line.len() {
                text[end] = line[from];
                end += 1;
                from += 1;
            }
            at += 1;
        }
        text
    }

    /// Returns the joined lines, if there are any.
    pub const fn text(joined: &'static [u8]) -> Option<&'static str> {
        match str::from_utf8(joined) {
            Ok(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    const fn unindented(line: &str) -> &[u8] {
        match line.as_bytes() {
            [b' ', rest @ ..] | rest => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate as qmp_proto;
    use crate::{CommandType, Json};

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub(super) struct Level {
        level: u8,
    }

    command_types! {
        /// Sets é.
        ///
        ///     indented
        #[derive(Debug, PartialEq, Default)]
        #[features("unstable", "x-wide")]
        #[allow(dead_code)]
        /** Also a line. */
        pub(super) SetAll = "x-set-all" {
            pub node_name: String,
            /// The list.
            pub levels: Option<Vec<Vec<u8>>>,
            #[serde(rename = "Last")] last: Option<()>
        } -> Level;
        Nothing = "x-nothing" {};
        GetLevel = "get-level"() -> Vec<Level>;
        SetLevel = "set-level"(Level);
    }

    #[test]
    fn a_declaration_says_all_about_a_command() {
        assert_eq!(SetAll::NAME, "x-set-all");
        assert_eq!(SetAll::FEATURES, ["unstable", "x-wide"]);
        assert_eq!(SetAll::DOCUMENTATION, Some("Sets é.\n\n    indented\nAlso a line. "));
        assert_eq!((GetLevel::DOCUMENTATION, GetLevel::FEATURES), (None, [].as_slice()));
        let levels = GetLevel::decode_result(&Json::encode(&[Level { level: 7 }]).unwrap());
        assert_eq!(levels, Ok(vec![Level { level: 7 }]));
        let json = SetLevel::encode_arguments(&Level { level: 7 }).unwrap().unwrap();
        assert_eq!(json.as_str(), r#"{"level": 7}"#);
        assert_eq!(SetLevel::decode_result(&json), Ok(()), "whatever it is");
        assert!(Nothing::encode_arguments(&Nothing {}).unwrap().is_none());
    }

    #[test]
    fn members_that_are_none_are_not_written() {
        let mut all = SetAll { node_name: "a".to_owned(), ..SetAll::default() };
        let write = |all: &SetAll| SetAll::encode_arguments(all).unwrap().unwrap();
        assert_eq!(write(&all).as_str(), r#"{"node-name": "a"}"#);
        assert_eq!(
            write(&all).decode(),
            Ok(SetAll { node_name: "a".to_owned(), ..SetAll::default() })
        );
        (all.levels, all.last) = (Some(vec![vec![1]]), Some(()));
        assert_eq!(write(&all).as_str(), r#"{"node-name": "a", "levels": [[1]], "Last": null}"#);
    }
}
