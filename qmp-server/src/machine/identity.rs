// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine is: `query-name`, `query-uuid`, `query-kvm`, `query-accelerators`, `query-target`.

use std::sync::Arc;

use qmp_dispatch::proto::{Dialect, Error};
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) struct MachineIdentity {
    name: Option<String>,
    uuid: String,
}

#[derive(Serialize, JsonSchema)]
struct NameInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct UuidInfo {
    #[serde(rename = "UUID")]
    uuid: String,
}

#[derive(Serialize, JsonSchema)]
struct KvmInfo {
    enabled: bool,
    present: bool,
}

/// Since 11.1.
#[derive(Serialize, JsonSchema)]
struct AcceleratorInfo {
    enabled: Accelerator,
    present: Vec<Accelerator>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "those that this QEMU is built without are for introspection")]
enum Accelerator {
    Hvf,
    Kvm,
    Mshv,
    Nvmm,
    Qtest,
    Tcg,
    Whpx,
    Xen,
}

#[derive(Serialize, JsonSchema)]
struct TargetInfo<Target> {
    arch: Target,
}

/// Declares the architectures of a QEMU, all for introspection but for the one of the machine.
macro_rules! architectures {
    ($name:ident: $($architecture:ident)+) => {
        #[derive(Serialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        #[expect(dead_code, reason = "the machine is an x86_64, the others are for introspection")]
        enum $name {
            $($architecture,)+
        }
    };
}

architectures! { Target10_0:
    Aarch64 Alpha Arm Avr Hppa I386 Loongarch64 M68k Microblaze Microblazeel Mips Mips64 Mips64el Mipsel Or1k Ppc Ppc64
    Riscv32 Riscv64 Rx S390x Sh4 Sh4eb Sparc Sparc64 Tricore X86_64 Xtensa Xtensaeb
}

architectures! { Target11_1:
    Aarch64 Alpha Arm Avr Hexagon Hppa I386 Loongarch64 M68k Microblaze Mips Mips64 Mips64el Mipsel Or1k Ppc Ppc64
    Riscv32 Riscv64 Rx S390x Sh4 Sh4eb Sparc Sparc64 Tricore X86_64 Xtensa Xtensaeb
}

pub(super) fn register(
    registry: &mut Registry,
    dialect: Dialect,
    identity: &Arc<MachineIdentity>,
) -> Result<(), RegisterError> {
    let mut group = registry.with(Arc::clone(identity));
    group.command("query-name", MachineIdentity::query_name)?;
    group.command("query-uuid", MachineIdentity::query_uuid)?;
    let kvm = registry.command("query-kvm", |_: &Context| {
        Ok::<_, Error>(KvmInfo { enabled: false, present: true })
    })?;
    if dialect < Dialect::Qemu11_1 {
        let target = |_: &Context| Ok::<_, Error>(TargetInfo { arch: Target10_0::X86_64 });
        registry.command("query-target", target)?;
        return Ok(());
    }
    kvm.deprecated();
    registry.command("query-accelerators", |_: &Context| {
        use Accelerator::{Kvm, Mshv, Qtest, Tcg};
        Ok::<_, Error>(AcceleratorInfo { enabled: Tcg, present: vec![Kvm, Mshv, Qtest, Tcg] })
    })?;
    let target = |_: &Context| Ok::<_, Error>(TargetInfo { arch: Target11_1::X86_64 });
    registry.command("query-target", target)?;
    Ok(())
}

impl MachineIdentity {
    pub(super) fn new(name: Option<String>, uuid: Option<String>) -> MachineIdentity {
        let uuid = uuid.unwrap_or_else(|| "00000000-0000-0000-0000-000000000000".to_owned());
        MachineIdentity { name, uuid }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    fn query_name(&self, _: &Context) -> Result<NameInfo, Error> {
        Ok(NameInfo { name: self.name.clone() })
    }

    fn query_uuid(&self, _: &Context) -> Result<UuidInfo, Error> {
        Ok(UuidInfo { uuid: self.uuid.clone() })
    }
}
