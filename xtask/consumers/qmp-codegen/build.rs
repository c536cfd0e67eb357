// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generates types from a schema, with names from another.

const NAMES: &str = "
{ 'union': 'Resize', 'base': { 'type': 'FileType', 'size': 'size' }, 'discriminator': 'type',
  'data': { 'file': 'File' } }
{ 'command': 'x-resize', 'data': 'Resize', 'boxed': true } # and what it returns
";

fn main() -> Result<(), qmp_codegen::Error> {
    qmp_codegen::Generator::new().qapi(NAMES).command("x-resize").build("schema.json", "qmp.rs")
}
