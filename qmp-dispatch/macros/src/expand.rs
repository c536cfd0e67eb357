// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole impl block.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ImplItem, ItemImpl};

use crate::command::Command;
use crate::options::BlockOptions;

/// Returns the block without our attributes, and another one with the function that registers the commands. All that is wrong
/// is reported, and the block is there nevertheless, so that nothing else is reported because of that.
pub(crate) fn block(options: &BlockOptions, mut block: ItemImpl) -> TokenStream {
    let mut commands: Vec<Command> = Vec::new();
    let mut errors = Vec::new();
    if let Some((path, _)) = &block.trait_ {
        errors.push(Error::new_spanned(
            path,
            "this is the impl block of a trait: commands are methods of a type, in an impl block of its own",
        ));
    }
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        match Command::take(method) {
            Ok(Some(command)) => {
                match commands.iter().find(|other| other.name().value() == command.name().value()) {
                    Some(_) => errors.push(Error::new(
                        command.name().span(),
                        format!("there are two commands '{}'", command.name().value()),
                    )),
                    None => commands.push(command),
                }
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    if commands.is_empty() && errors.is_empty() {
        errors.push(Error::new_spanned(
            &block.self_ty,
            "no method of this block is a command: mark those that are with `#[qmp]`",
        ));
    }
    let errors = errors.into_iter().map(syn::Error::into_compile_error);
    let register = (block.trait_.is_none()).then(|| register(options, &block, &commands));
    quote! {
        #block
        #register
        #(#errors)*
    }
}

fn register(options: &BlockOptions, block: &ItemImpl, commands: &[Command]) -> TokenStream {
    let BlockOptions { register, dispatch } = options;
    let this = &block.self_ty;
    let (generics, _, bounds) = block.generics.split_for_impl();
    let registered = commands.iter().map(|command| command.register(dispatch, this));
    let registry = format_ident!("registry");
    quote! {
        impl #generics #this #bounds {
            /// Registers the commands of this type.
            ///
            /// # Errors
            ///
            /// If a name is taken already, or a type cannot be expressed in QAPI.
            #[allow(unreachable_pub, dead_code)]
            pub fn #register(
                self: ::std::sync::Arc<Self>,
                #registry: &mut #dispatch::Registry,
            ) -> ::core::result::Result<(), #dispatch::RegisterError> {
                let mut group = #registry.with(self);
                #(#registered)*
                ::core::result::Result::Ok(())
            }
        }
    }
}
