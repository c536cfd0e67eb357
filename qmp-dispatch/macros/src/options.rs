// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written in the parentheses of the attributes.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Ident, LitStr, Meta, Path, Result, Token, parse_quote};

/// Options of the block.
pub(crate) struct BlockOptions {
    pub(crate) register: Ident,
    pub(crate) dispatch: Path,
}

impl Parse for BlockOptions {
    fn parse(input: ParseStream<'_>) -> Result<BlockOptions> {
        let mut options = BlockOptions {
            register: Ident::new("register", Span::call_site()),
            dispatch: parse_quote!(::qmp_dispatch),
        };
        while !input.is_empty() {
            if input.parse::<Option<Token![crate]>>()?.is_some() {
                input.parse::<Token![=]>()?;
                options.dispatch = input.parse()?;
            } else {
                let name: Ident = input.parse()?;
                if name != "register" {
                    let expected = "expected `register = name` or `crate = path`";
                    return Err(Error::new(
                        name.span(),
                        format!("unknown option `{name}`: {expected}"),
                    ));
                }
                input.parse::<Token![=]>()?;
                options.register = input.parse()?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// Options of a method.
#[derive(Default)]
pub(crate) struct MethodOptions {
    pub(crate) name: Option<LitStr>,
    /// Those that are methods of `Command` without a parameter.
    pub(crate) settings: Vec<Ident>,
    pub(crate) features: Vec<LitStr>,
}

/// The names of settings, and of the methods of `Command`.
const SETTINGS: [(&str, &str); 6] = [
    ("oob", "allow_oob"),
    ("preconfig", "allow_preconfig"),
    ("no_success_response", "no_success_response"),
    ("deprecated", "deprecated"),
    ("unstable", "unstable"),
    ("cancellable", "cancellable"),
];

impl MethodOptions {
    /// Takes the attributes `#[qmp]` away. Returns `None` if there is none.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> Result<Option<MethodOptions>> {
        let mut options = None;
        for attribute in take_ours(attributes) {
            let options = options.get_or_insert_with(MethodOptions::default);
            if !matches!(attribute.meta, Meta::Path(_)) {
                attribute.parse_nested_meta(|meta| options.add(&meta))?;
            }
        }
        Ok(options)
    }

    fn add(&mut self, meta: &syn::meta::ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("name") {
            self.name = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("feature") {
            self.features.push(meta.value()?.parse()?);
        } else if let Some((_, method)) = SETTINGS.iter().find(|(name, _)| meta.path.is_ident(name))
        {
            self.settings.push(Ident::new(
                method,
                meta.path.get_ident().map_or_else(Span::call_site, Ident::span),
            ));
        } else {
            let names = SETTINGS.map(|(name, _)| format!("`{name}`")).join(", ");
            return Err(meta.error(format!(
                "unknown option of a command: expected `name = \"…\"`, `feature = \"…\"`, {names}"
            )));
        }
        Ok(())
    }

    pub(crate) fn find(&self, setting: &str) -> Option<&Ident> {
        self.settings.iter().find(|own| *own == setting)
    }
}

/// Options of a parameter.
#[derive(Default)]
pub(crate) struct ParameterOptions {
    pub(crate) name: Option<LitStr>,
    /// Whether it is a member of the arguments, or the whole, if that is said.
    pub(crate) is_member: Option<bool>,
}

impl ParameterOptions {
    /// Takes the attributes `#[qmp]` away.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> Result<ParameterOptions> {
        let mut options = ParameterOptions::default();
        for attribute in take_ours(attributes) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    options.name = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("member") {
                    options.is_member = Some(true);
                } else if meta.path.is_ident("arguments") {
                    options.is_member = Some(false);
                } else {
                    return Err(meta.error(
                        "unknown option of a parameter: expected `name = \"…\"`, `member` or `arguments`",
                    ));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
}

fn take_ours(attributes: &mut Vec<Attribute>) -> Vec<Attribute> {
    attributes.extract_if(.., |attribute| attribute.path().is_ident("qmp")).collect()
}
