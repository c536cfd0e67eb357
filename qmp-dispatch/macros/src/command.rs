// SPDX-License-Identifier: MIT OR Apache-2.0
//! A method that is a command.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, ImplItemFn, Lit, LitStr, Meta, Path, Result, ReturnType,
    Safety, Type,
};

use crate::options::MethodOptions;
use crate::parameters::{Arguments, Context, Member, Parameters, Receiver, is_result};

pub(crate) struct Command {
    method: syn::Ident,
    name: LitStr,
    options: MethodOptions,
    documentation: String,
    is_async: bool,
    parameters: Parameters,
    /// `None` for the unit type.
    output: Option<Type>,
}

impl Command {
    /// Takes our attributes away. Returns `None` for a method that is not a command.
    pub(crate) fn take(method: &mut ImplItemFn) -> Result<Option<Command>> {
        let Some(options) = MethodOptions::take(&mut method.attrs)? else { return Ok(None) };
        let signature = &mut method.sig;
        if !signature.generics.params.is_empty() {
            return Err(Error::new_spanned(
                &signature.generics,
                "this command is generic: its arguments and its result are to be of one type, which clients can see",
            ));
        }
        if matches!(signature.safety, Safety::Unsafe(_)) {
            return Err(Error::new_spanned(
                &*signature,
                "this command is unsafe: clients can send anything",
            ));
        }
        let is_async = signature.asyncness.is_some();
        if !is_async && let Some(setting) = options.find("cancellable") {
            return Err(Error::new(
                setting.span(),
                "only the future of an `async fn` can be dropped: leave `cancellable` out, or make it async",
            ));
        }
        let parameters = Parameters::take(signature)?;
        let output = match &signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some((**ty).clone()),
        };
        let name = match &options.name {
            Some(name) => name.clone(),
            None => {
                let name = kebab(&signature.ident.to_string());
                LitStr::new(&name, signature.ident.span())
            }
        };
        check_name(&name)?;
        Ok(Some(Command {
            method: signature.ident.clone(),
            name,
            options,
            documentation: documentation(&method.attrs),
            is_async,
            parameters,
            output,
        }))
    }

    pub(crate) fn name(&self) -> &LitStr {
        &self.name
    }

    /// Statements that register it in the group `group`.
    pub(crate) fn register(&self, dispatch: &Path, this: &Type) -> TokenStream {
        let Command { method, name, .. } = self;
        let fallible = self.output.as_ref().is_some_and(is_result);
        let (declared, parameter, passed) = self.arguments(dispatch);
        let checks = self.checks(dispatch, fallible);
        let context = match self.parameters.context {
            Context::Absent => quote!(_),
            Context::Reference | Context::Value => quote!(context),
        };
        let state = match (self.is_async, self.parameters.receiver) {
            (true, Receiver::Reference) => quote!(&state),
            (false, _) | (true, Receiver::Arc) => quote!(state),
        };
        let lent_context = match (self.is_async, self.parameters.context) {
            (_, Context::Absent) => None,
            (true, Context::Reference) => Some(quote!(&context,)),
            (false, _) | (true, Context::Value) => Some(quote!(context,)),
        };
        let wait = self.is_async.then(|| quote!(.await));
        let mut call =
            quote_spanned!(method.span()=> <#this>::#method(#state, #lent_context #passed) #wait);
        if !fallible {
            call = quote!(::core::result::Result::Ok::<_, #dispatch::proto::Error>(#call));
        }
        let (register, handler) = match self.is_async {
            true => (
                quote!(async_command),
                quote! {
                    |state: ::std::sync::Arc<#this>, #context: #dispatch::AsyncContext #parameter| async move { #call }
                },
            ),
            false => (
                quote!(command),
                quote!(|state: &#this, #context: &#dispatch::Context #parameter| #call),
            ),
        };
        let settings = self.options.settings.iter();
        let features = self.options.features.iter();
        let documented = Some(&self.documentation).filter(|text| !text.is_empty());
        let documented = documented.map(|text| quote!(.documented(#text)));
        quote_spanned! {method.span()=>
            {
                #declared
                #checks
                group.#register(#name, #handler)? #(.#settings())* #(.feature(#features))* #documented;
            }
        }
    }

    /// What is declared for the arguments, the handler's parameter for them, and what is passed to the method.
    fn arguments(&self, dispatch: &Path) -> (TokenStream, TokenStream, TokenStream) {
        match &self.parameters.arguments {
            Arguments::None => Default::default(),
            Arguments::Whole(ty) => (quote!(), quote!(, arguments: #ty), quote!(arguments)),
            Arguments::Members(members) => {
                let names: Vec<_> = members.iter().map(|member| &member.ident).collect();
                let declared = struct_of(members, dispatch);
                (declared, quote!(, Arguments { #(#names),* }: Arguments), quote!(#(#names),*))
            }
        }
    }

    /// Checks of each part, at its place in the method.
    fn checks(&self, dispatch: &Path, fallible: bool) -> TokenStream {
        let mut checks = TokenStream::new();
        let mut check = |function: &str, ty: &Type| {
            let function = format_ident!("{function}");
            // Whatever of it the compiler underlines is the type.
            let function = respanned(quote!(#dispatch::parts::#function), ty.span());
            checks.extend(quote_spanned!(ty.span()=> #function::<#ty>();));
        };
        match &self.parameters.arguments {
            Arguments::None => {}
            Arguments::Whole(ty) => check("check_arguments", ty),
            Arguments::Members(members) => {
                members.iter().for_each(|member| check("check_arguments", &member.ty));
            }
        }
        if let Some(output) = &self.output {
            check(if fallible { "check_output" } else { "check_result" }, output);
        }
        checks
    }
}

fn respanned(tokens: TokenStream, span: Span) -> TokenStream {
    let tokens = tokens.into_iter().map(|mut token| {
        token.set_span(span);
        token
    });
    tokens.collect()
}

/// The struct that is made of listed parameters.
fn struct_of(members: &[Member], dispatch: &Path) -> TokenStream {
    let path = quote!(#dispatch).to_string().replace(' ', "");
    let (serde, schemars) = (format!("{path}::serde"), format!("{path}::schemars"));
    let fields = members.iter().map(|Member { ident, ty, name, attributes }| {
        let rename = name.as_ref().map(|name| quote!(#[serde(rename = #name)]));
        quote!(#(#attributes)* #rename #ident: #ty)
    });
    quote! {
        #[derive(#dispatch::serde::Deserialize, #dispatch::schemars::JsonSchema)]
        #[serde(crate = #serde, rename_all = "kebab-case")]
        #[schemars(crate = #schemars)]
        struct Arguments { #(#fields),* }
    }
}

/// QAPI's way of writing the names of new commands.
fn kebab(name: &str) -> String {
    name.trim_start_matches("r#").replace('_', "-")
}

fn check_name(name: &LitStr) -> Result<()> {
    let value = name.value();
    let is_part =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    // Names of vendors begin with two underscores.
    let begins =
        value.starts_with("__") || value.starts_with(|first: char| first.is_ascii_alphabetic());
    if begins && value.chars().all(is_part) {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        format!(
            "invalid name '{value}' of a command: expected a letter followed by letters, digits, '-' or '_'"
        ),
    ))
}

/// The text of doc comments, without the space that most lines begin with.
fn documentation(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &pair.value else { continue };
        if pair.path.is_ident("doc") {
            let line = line.value();
            text += line.strip_prefix(' ').unwrap_or(&line);
            text.push('\n');
        }
    }
    text.trim().to_owned()
}
