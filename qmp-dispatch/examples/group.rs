// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group of commands that lives in a crate of its own: all it has to offer is a registry, which
//! the program merges into its own.

use qmp_dispatch::{LocalClient, RegisterError, Registry};

/// Stands for a crate that others depend on; it needs nothing of theirs.
#[expect(unreachable_pub, reason = "as in a crate of its own")]
mod yank {
    use std::sync::Arc;

    use qmp_dispatch::proto::Error;
    use qmp_dispatch::{Context, RegisterError, Registry};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// What can be yanked.
    pub struct Instances(pub Vec<&'static str>);

    #[derive(Serialize, JsonSchema)]
    struct YankInstance {
        name: &'static str,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Yank {
        instances: Vec<String>,
    }

    /// `yank` and `query-yank`.
    pub fn commands(instances: Instances) -> Result<Registry, RegisterError> {
        let mut registry = Registry::new();
        let mut group = registry.with(Arc::new(instances));
        group.command("yank", Instances::yank)?.allow_oob();
        group.command("query-yank", Instances::query)?.allow_oob();
        Ok(registry)
    }

    impl Instances {
        fn yank(&self, _: &Context, arguments: Yank) -> Result<(), Error> {
            match arguments.instances.iter().find(|name| !self.0.contains(&name.as_str())) {
                None => Ok(()),
                Some(name) => Err(Error::generic(format!("Yank instance '{name}' not found"))),
            }
        }

        fn query(&self, _: &Context) -> Result<Vec<YankInstance>, Error> {
            Ok(self.0.iter().map(|name| YankInstance { name }).collect())
        }
    }
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.merge(yank::commands(yank::Instances(vec!["migration"]))?)?;
    Ok(registry)
}

const SESSION: &str = "
    {'execute': 'query-yank'}
    {'execute': 'yank', 'arguments': {'instances': ['migration', 'chardev']}}";

fn main() -> Result<(), RegisterError> {
    let client = LocalClient::new(registry()?);
    client.ask(SESSION).iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn the_commands_of_the_group_are_served_and_registered_once() {
    let said = LocalClient::new(registry().unwrap()).ask(SESSION);
    assert_eq!(said[0], r#"{"return": [{"name": "migration"}]}"#);
    assert!(said[1].contains("Yank instance 'chardev' not found"), "{}", said[1]);
    let again = yank::commands(yank::Instances(Vec::new())).unwrap();
    assert!(registry().unwrap().merge(again).is_err());
}
