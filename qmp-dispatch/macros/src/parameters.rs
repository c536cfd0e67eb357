// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parameters of a command's method.

use syn::{
    Attribute, Error, FnArg, Ident, LitStr, Pat, PatType, ReceiverKind, Result, Signature, Type,
};

use crate::options::ParameterOptions;

/// How a method takes `self`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    Reference,
    Arc,
}

/// How a method takes its context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    Absent,
    Reference,
    Value,
}

pub(crate) enum Arguments {
    None,
    Whole(Box<Type>),
    Members(Vec<Member>),
}

/// A parameter that is a member of the arguments.
pub(crate) struct Member {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) name: Option<LitStr>,
    /// Documentation, and attributes for derive macros.
    pub(crate) attributes: Vec<Attribute>,
}

pub(crate) struct Parameters {
    pub(crate) receiver: Receiver,
    pub(crate) context: Context,
    pub(crate) arguments: Arguments,
}

impl Parameters {
    /// Takes the attributes away that are not Rust's.
    pub(crate) fn take(signature: &mut Signature) -> Result<Parameters> {
        let is_async = signature.asyncness.is_some();
        let name = signature.ident.clone();
        let mut inputs = signature.inputs.iter_mut();
        let receiver = match inputs.next() {
            Some(FnArg::Receiver(receiver)) => receiver_kind(receiver, is_async)?,
            _ => {
                return Err(Error::new(
                    name.span(),
                    "this command does not take `&self`: that is its state, and a function without state is registered with `Registry::command`",
                ));
            }
        };
        let mut context = Context::Absent;
        let mut rest = Vec::new();
        for (at, input) in inputs.enumerate() {
            let FnArg::Typed(input) = input else { continue };
            match context_kind(&input.ty) {
                Some(kind) if at == 0 => {
                    check_context(&input.ty, kind, is_async)?;
                    context = kind;
                }
                Some(_) => {
                    return Err(Error::new_spanned(
                        &*input,
                        "the context of this command comes after its arguments: it is to be the first parameter after `self`",
                    ));
                }
                None => rest.push(input),
            }
        }
        Ok(Parameters { receiver, context, arguments: Arguments::take(rest)? })
    }
}

fn receiver_kind(receiver: &syn::Receiver, is_async: bool) -> Result<Receiver> {
    match &receiver.kind {
        ReceiverKind::Reference(_, _, None) => return Ok(Receiver::Reference),
        ReceiverKind::Typed(_, ty) if last_ident(ty).is_some_and(|last| last == "Arc") => {
            if is_async {
                return Ok(Receiver::Arc);
            }
            return Err(Error::new_spanned(
                receiver,
                "this command takes its state by `Arc`: take `&self`; only an `async fn` takes `self: Arc<Self>`",
            ));
        }
        _ => {}
    }
    Err(Error::new_spanned(
        receiver,
        "this command owns or changes `self`: take `&self`, or `self: Arc<Self>`, for commands share their state with other threads; what changes is in a `Mutex` or an atomic",
    ))
}

/// Whether a parameter is a context, and how it is taken.
fn context_kind(ty: &Type) -> Option<Context> {
    let is_context =
        |ty: &Type| last_ident(ty).is_some_and(|last| last == "Context" || last == "AsyncContext");
    match ty {
        Type::Reference(reference) if is_context(&reference.elem) => Some(Context::Reference),
        ty if is_context(ty) => Some(Context::Value),
        _ => None,
    }
}

fn check_context(ty: &Type, kind: Context, is_async: bool) -> Result<()> {
    let inner = match ty {
        Type::Reference(reference) => &*reference.elem,
        ty => ty,
    };
    let is_owned = last_ident(inner).is_some_and(|last| last == "AsyncContext");
    let wrong = match (is_async, is_owned, kind) {
        (true, false, _) => {
            "the context of an async command is an `AsyncContext`: a `Context` is lent by the thread that calls a handler"
        }
        (false, true, _) => {
            "only an `async fn` takes an `AsyncContext`: take `&Context`, or make it async"
        }
        (false, false, Context::Value) => {
            "this command takes its context by value: take `&Context`"
        }
        _ => return Ok(()),
    };
    Err(Error::new_spanned(ty, wrong))
}

impl Arguments {
    fn take(mut parameters: Vec<&mut PatType>) -> Result<Arguments> {
        let mut options = Vec::new();
        for parameter in &mut parameters {
            check_type(&parameter.ty)?;
            options.push(ParameterOptions::take(&mut parameter.attrs)?);
        }
        let Some(first) = parameters.first() else { return Ok(Arguments::None) };
        if let [only] = &options[..] {
            let is_member = only.is_member.unwrap_or_else(|| is_plain(&first.ty));
            if !is_member && only.name.is_none() {
                return Ok(Arguments::Whole(first.ty.clone()));
            }
        } else if let Some(whole) = options.iter().position(|of| of.is_member == Some(false)) {
            return Err(Error::new_spanned(
                &*parameters[whole],
                "`arguments` is for the only parameter of a command: list the members, or take them all in one struct",
            ));
        }
        let members = parameters.into_iter().zip(options);
        let members = members.map(|(parameter, options)| Member::take(parameter, options));
        Ok(Arguments::Members(members.collect::<Result<_>>()?))
    }
}

impl Member {
    fn take(parameter: &mut PatType, options: ParameterOptions) -> Result<Member> {
        let Pat::Ident(pattern) = &*parameter.pat else {
            return Err(Error::new_spanned(
                &parameter.pat,
                "this parameter has no name: a member of the arguments is named by its parameter",
            ));
        };
        let ident = pattern.ident.clone();
        let is_for_derive = |attribute: &mut Attribute| {
            ["doc", "serde", "schemars"].iter().any(|name| attribute.path().is_ident(name))
        };
        let attributes = parameter.attrs.extract_if(.., is_for_derive).collect();
        Ok(Member { ident, ty: (*parameter.ty).clone(), name: options.name, attributes })
    }
}

fn check_type(ty: &Type) -> Result<()> {
    let wrong = match ty {
        Type::Reference(_) => {
            "arguments are owned, and this is a reference: take it by value, for example a `String` in place of a `&str`"
        }
        Type::ImplTrait(_) => {
            "the type of an argument is to be written out, in place of `impl Trait`"
        }
        _ => return Ok(()),
    };
    Err(Error::new_spanned(ty, wrong))
}

/// Whether a type cannot be the whole of the arguments.
fn is_plain(ty: &Type) -> bool {
    const PLAIN: [&str; 19] = [
        "bool", "char", "String", "Option", "Vec", "i8", "i16", "i32", "i64", "i128", "isize",
        "u8", "u16", "u32", "u64", "u128", "usize", "f32", "f64",
    ];
    last_ident(ty).is_none_or(|last| PLAIN.iter().any(|plain| last == plain))
}

fn last_ident(ty: &Type) -> Option<&Ident> {
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().map(|segment| &segment.ident)
}

/// Whether a type is named as a `Result` is.
pub(crate) fn is_result(ty: &Type) -> bool {
    last_ident(ty).is_some_and(|last| last.to_string().ends_with("Result"))
}
