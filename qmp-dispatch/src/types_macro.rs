// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types of arguments and results, without the attributes that they would need.

/// Declares structs and enums that can be arguments, results and the data of events.
///
/// They derive `Serialize`, `Deserialize` and [`JsonSchema`](schemars::JsonSchema), by way of this crate: the
/// one that declares them need not depend on serde and schemars, but must know this one as
/// `qmp_dispatch`. Names on the wire are in `kebab-case`, as QAPI's are. All other attributes can be
/// given; a type with attributes that contradict these derives by itself.
///
/// ```
/// use qmp_dispatch::qapi::arguments_of;
/// use qmp_dispatch::qapi_types;
///
/// qapi_types! {
///     /// Makes a copy.
///     struct Backup {
///         node_name: String,
///         sync: Option<SyncMode>,
///     }
///
///     #[derive(Clone, Copy)]
///     enum SyncMode {
///         Full,
///         TopOnly,
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
    ($(#[$attribute:meta])* $vis:vis struct $name:ident { $($body:tt)* } $($rest:tt)*) => {
        #[derive(
            $crate::serde::Serialize, $crate::serde::Deserialize, $crate::schemars::JsonSchema,
        )]
        #[serde(crate = "qmp_dispatch::serde", rename_all = "kebab-case")]
        #[schemars(crate = "qmp_dispatch::schemars")]
        $(#[$attribute])*
        $vis struct $name { $($body)* }

        $crate::qapi_types! { $($rest)* }
    };
    ($(#[$attribute:meta])* $vis:vis enum $name:ident { $($body:tt)* } $($rest:tt)*) => {
        #[derive(
            $crate::serde::Serialize, $crate::serde::Deserialize, $crate::schemars::JsonSchema,
        )]
        #[serde(
            crate = "qmp_dispatch::serde",
            rename_all = "kebab-case",
            rename_all_fields = "kebab-case",
        )]
        #[schemars(crate = "qmp_dispatch::schemars")]
        $(#[$attribute])*
        $vis enum $name { $($body)* }

        $crate::qapi_types! { $($rest)* }
    };
}
