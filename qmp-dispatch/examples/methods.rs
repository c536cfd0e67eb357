// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that are the methods of a type, with the attribute of the feature `macros`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{
    AsyncContext, Context, LocalClient, RegisterError, Registry, Task, qapi_types, qmp_commands,
};

qapi_types! {
    struct BlockResize {
        node_name: String,
        size: i64,
    }

    #[derive(Clone)]
    struct BlockInfo {
        node_name: String,
        size: i64,
    }
}

struct Disks(Mutex<Vec<BlockInfo>>);

#[qmp_commands]
impl Disks {
    /// Resizes a disk.
    #[qmp(name = "block_resize")]
    fn block_resize(&self, _: &Context, new: BlockResize) -> Result<(), Error> {
        let mut disks = self.disks();
        let disk = disks.iter_mut().find(|disk| disk.node_name == new.node_name);
        disk.ok_or_else(|| Error::generic("there is no such disk"))?.size = new.size;
        Ok(())
    }

    /// Adds a disk.
    ///
    /// It is empty.
    #[qmp(unstable)]
    fn x_disk_add(&self, node_name: String, #[qmp(name = "size_in_bytes")] size: Option<i64>) {
        self.disks().push(BlockInfo { node_name, size: size.unwrap_or(0) });
    }

    /// Waits until all that was written is on the disks.
    #[qmp(unstable, cancellable)]
    async fn x_flush(&self, _: &AsyncContext) -> Result<usize, Error> {
        thread::yield_now();
        Ok(self.disks().len())
    }

    #[qmp(oob, preconfig)]
    fn query_block(&self) -> Vec<BlockInfo> {
        self.disks().clone()
    }

    fn disks(&self) -> MutexGuard<'_, Vec<BlockInfo>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.set_executor(|task: Task| _ = thread::spawn(|| task.run()));
    Arc::new(Disks(Mutex::default())).register(&mut registry)?;
    Ok(registry)
}

const SESSION: &str = "
    {'execute': 'x-disk-add', 'arguments': {'node-name': 'disk0'}}
    {'execute': 'block_resize', 'arguments': {'node-name': 'disk0', 'size': 4096}}
    {'execute': 'x-flush'}
    {'execute': 'query-block'}
    {'execute': 'x-disk-add', 'arguments': {'node-name': 'disk1', 'size_in_bytes': '1G'}}";

fn main() -> Result<(), RegisterError> {
    let client = LocalClient::new(registry()?);
    client.ask(SESSION).iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn methods_are_commands() {
    let registry = registry().unwrap();
    let add = registry.find_command("x-disk-add").unwrap();
    assert_eq!(add.documentation(), Some("Adds a disk.\n\nIt is empty."));
    assert_eq!(add.features(), ["unstable"]);
    let query = registry.find_command("query-block").unwrap();
    assert!(query.allows_oob() && query.allows_preconfig());
    assert!(registry.find_command("x-flush").unwrap().is_async());
    assert!(registry.find_command("disks").is_none());

    let said = LocalClient::new(registry).ask(SESSION);
    assert_eq!(said[..3], [r#"{"return": {}}"#, r#"{"return": {}}"#, r#"{"return": 1}"#]);
    assert_eq!(said[3], r#"{"return": [{"node-name": "disk0", "size": 4096}]}"#);
    assert!(said[4].contains("Invalid parameter type for 'size_in_bytes', expected: integer"));
}
