// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types of arguments and results, without the attributes that they would need.

/// Declares structs and enums that can be arguments, results and the data of events.
///
/// They derive `Serialize`, `Deserialize` and [`JsonSchema`](schemars::JsonSchema), by way of this crate: the one that declares
/// them needs neither serde nor schemars, and may know this one by any name, such as `qmp_server::dispatch`. Structs may have
/// named members, one unnamed member (then they are what they contain) or none; types may have parameters. All other attributes
/// can be given; a type with attributes that contradict these derives by itself.
///
/// Names on the wire are in `kebab-case`, as QAPI's are, unless a type has a `#[serde(rename_all = "…")]` of its own.
///
/// ```
/// use qmp_dispatch::qapi::arguments_of;
/// use qmp_dispatch::qapi_types;
///
/// qapi_types! {
///     /// Makes a copy.
///     struct Backup {
///         node_name: NodeName,
///         sync: Option<SyncMode>,
///         limits: Option<Range<u32>>,
///     }
///
///     struct NodeName(String);
///
///     #[derive(Clone, Copy)]
///     enum SyncMode {
///         Full,
///         TopOnly,
///     }
///
///     #[serde(rename_all = "snake_case")]
///     struct Range<T> {
///         at_least: T,
///         at_most: T,
///     }
/// }
///
/// let arguments = arguments_of::<Backup>()?;
/// let object = [("node-name", "disk0"), ("sync", "top-only")].into_iter().collect();
/// assert!(matches!(arguments.decode(object), Ok(Backup { sync: Some(SyncMode::TopOnly), .. })));
/// # Ok::<(), qmp_dispatch::qapi::SchemaError>(())
/// ```
#[macro_export]
macro_rules! qapi_types {
    () => {};
    // One step for each type: the rest is not within the expansion of the first, so that the compiler's limit of recursion is
    // not reached by the length of doc comments.
    ($(#[$($attribute:tt)*])* $vis:vis struct $name:ident { $($body:tt)* } $($rest:tt)*) => {
        $crate::__qapi_type! { (struct) [$vis struct $name { $($body)* }] [] $(#[$($attribute)*])* }
        $crate::qapi_types! { $($rest)* }
    };
    ($(#[$($attribute:tt)*])* $vis:vis struct $name:ident ( $($body:tt)* ); $($rest:tt)*) => {
        $crate::__qapi_type! { (struct) [$vis struct $name ( $($body)* );] [] $(#[$($attribute)*])* }
        $crate::qapi_types! { $($rest)* }
    };
    ($(#[$($attribute:tt)*])* $vis:vis enum $name:ident { $($body:tt)* } $($rest:tt)*) => {
        $crate::__qapi_type! { (enum) [$vis enum $name { $($body)* }] [] $(#[$($attribute)*])* }
        $crate::qapi_types! { $($rest)* }
    };
    // With parameters, or `struct Name;`: the type ends with the first braces or the first semicolon.
    ($(#[$($attribute:tt)*])* $vis:vis struct $name:ident $($rest:tt)*) => {
        $crate::__qapi_type! { @end (struct) [$(#[$($attribute)*])*] [$vis struct $name] $($rest)* }
    };
    ($(#[$($attribute:tt)*])* $vis:vis enum $name:ident $($rest:tt)*) => {
        $crate::__qapi_type! { @end (enum) [$(#[$($attribute)*])*] [$vis enum $name] $($rest)* }
    };
}

/// Finds the end of a type, and whether its attributes say how its names are spelt.
#[doc(hidden)]
#[macro_export]
macro_rules! __qapi_type {
    (@end $kind:tt [$($attributes:tt)*] [$($item:tt)*] { $($body:tt)* } $($rest:tt)*) => {
        $crate::__qapi_type! { $kind [$($item)* { $($body)* }] [] $($attributes)* }
        $crate::qapi_types! { $($rest)* }
    };
    (@end $kind:tt [$($attributes:tt)*] [$($item:tt)*] ; $($rest:tt)*) => {
        $crate::__qapi_type! { $kind [$($item)* ;] [] $($attributes)* }
        $crate::qapi_types! { $($rest)* }
    };
    (@end $kind:tt $attributes:tt [$($item:tt)*] $next:tt $($rest:tt)*) => {
        $crate::__qapi_type! { @end $kind $attributes [$($item)* $next] $($rest)* }
    };

    (@serde (struct) $item:tt [$($seen:tt)*] [rename_all $($argument:tt)*] $($rest:tt)*) => {
        $crate::__qapi_type! { @derive $item $($seen)* $($rest)* }
    };
    (@serde (enum) $item:tt [$($seen:tt)*] [rename_all $($argument:tt)*] $($rest:tt)*) => {
        $crate::__qapi_type! {
            @derive $item #[serde(rename_all_fields = "kebab-case")] $($seen)* $($rest)*
        }
    };
    (@serde $kind:tt $item:tt $seen:tt [$other:tt $($argument:tt)*] $($rest:tt)*) => {
        $crate::__qapi_type! { @serde $kind $item $seen [$($argument)*] $($rest)* }
    };
    (@serde $kind:tt $item:tt $seen:tt [] $($rest:tt)*) => {
        $crate::__qapi_type! { $kind $item $seen $($rest)* }
    };

    // The derived code refers to its crates by a path in a string, where `$crate` means nothing. A glob can be imported again
    // and again.
    (@derive [$($item:tt)*] $($attributes:tt)*) => {
        #[allow(unused_imports)]
        use $crate::__derive::*;

        #[derive(
            $crate::serde::Serialize, $crate::serde::Deserialize, $crate::schemars::JsonSchema,
        )]
        #[serde(crate = "__qmp_dispatch::serde")]
        #[schemars(crate = "__qmp_dispatch::schemars")]
        $($attributes)*
        $($item)*
    };

    // These come last: `$kind` takes an `@`, too. The attributes that are in the list are of no interest any more.
    ($kind:tt $item:tt [$($seen:tt)*] #[serde($($argument:tt)*)] $($rest:tt)*) => {
        $crate::__qapi_type! {
            @serde $kind $item [$($seen)* #[serde($($argument)*)]] [$($argument)*] $($rest)*
        }
    };
    ($kind:tt $item:tt [$($seen:tt)*] #[$($attribute:tt)*] $($rest:tt)*) => {
        $crate::__qapi_type! { $kind $item [$($seen)* #[$($attribute)*]] $($rest)* }
    };
    ((struct) $item:tt [$($attributes:tt)*]) => {
        $crate::__qapi_type! {
            @derive $item #[serde(rename_all = "kebab-case")] $($attributes)*
        }
    };
    ((enum) $item:tt [$($attributes:tt)*]) => {
        $crate::__qapi_type! {
            @derive $item
            #[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
            $($attributes)*
        }
    };
}
