// SPDX-License-Identifier: MIT OR Apache-2.0
//! Twenty commands as the methods of one type, with their tests: nodes and jobs of a block layer that keeps no data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, EventType, RegisterError, Registry, qapi_types, qmp_commands};

type Result<T = ()> = std::result::Result<T, Error>;
type Table<T> = Mutex<BTreeMap<String, T>>;

qapi_types! {
    #[derive(Clone)]
    struct Node { node_name: String, size: u64, read_only: bool, threshold: u64, label: String }
    #[derive(Clone)]
    struct Job { id: String, status: JobStatus, speed: u64 }
    #[derive(Clone, Copy, PartialEq)]
    enum JobStatus { Running, Paused, Pending, Concluded }
}
use JobStatus::{Concluded, Paused, Pending, Running};

const X_JOB_CHANGE: EventType<Job> = EventType::new("X_JOB_CHANGE");

#[derive(Default)]
struct Block {
    nodes: Table<Node>,
    jobs: Table<Job>,
}

#[qmp_commands]
impl Block {
    /// Adds a node, by default of 1 GiB.
    #[qmp]
    fn x_node_add(&self, node_name: String, size: Option<u64>) -> Result {
        let (name, size, label) = (node_name.clone(), size.unwrap_or(1 << 30), String::new());
        add(&self.nodes, name, Node { node_name, size, read_only: false, threshold: 0, label })
    }

    #[qmp]
    fn x_node_rename(&self, node_name: String, new_name: String) -> Result {
        let node = remove(&self.nodes, &node_name)?;
        add(&self.nodes, new_name.clone(), Node { node_name: new_name, ..node })
    }

    #[qmp]
    fn x_node_set_label(&self, node_name: String, label: String) -> Result {
        change(&self.nodes, &node_name, |node| node.label = label)
    }

    #[qmp]
    fn x_node_lock(&self, node_name: String) -> Result {
        change(&self.nodes, &node_name, |node| node.read_only = true)
    }

    #[qmp]
    fn x_node_unlock(&self, node_name: String) -> Result {
        change(&self.nodes, &node_name, |node| node.read_only = false)
    }

    #[qmp(name = "block_resize")]
    fn block_resize(&self, node_name: String, size: u64) -> Result {
        change(&self.nodes, &node_name, |node| node.size = size)
    }

    #[qmp]
    fn block_set_write_threshold(&self, node_name: String, write_threshold: u64) -> Result {
        change(&self.nodes, &node_name, |node| node.threshold = write_threshold)
    }

    #[qmp]
    fn blockdev_del(&self, node_name: String) -> Result {
        remove(&self.nodes, &node_name).map(drop)
    }

    #[qmp]
    fn query_named_block_nodes(&self) -> Vec<Node> {
        self.nodes.lock().unwrap().values().cloned().collect()
    }

    #[qmp]
    fn block_commit(&self, context: &Context, job_id: String, device: String) -> Result {
        self.start(context, job_id, &device)
    }

    #[qmp]
    fn block_stream(&self, context: &Context, job_id: String, device: String) -> Result {
        self.start(context, job_id, &device)
    }

    #[qmp(oob)]
    fn block_job_set_speed(&self, device: String, speed: u64) -> Result {
        change(&self.jobs, &device, |job| job.speed = speed)
    }

    #[qmp]
    fn job_pause(&self, context: &Context, id: String) -> Result {
        self.turn(context, &id, &[Running], Paused)
    }

    #[qmp]
    fn job_resume(&self, context: &Context, id: String) -> Result {
        self.turn(context, &id, &[Paused], Running)
    }

    #[qmp]
    fn job_complete(&self, context: &Context, id: String) -> Result {
        self.turn(context, &id, &[Running], Pending)
    }

    #[qmp]
    fn job_finalize(&self, context: &Context, id: String) -> Result {
        self.turn(context, &id, &[Pending], Concluded)
    }

    #[qmp]
    fn job_cancel(&self, context: &Context, id: String) -> Result {
        self.turn(context, &id, &[Running, Paused, Pending], Concluded)
    }

    #[qmp]
    fn job_dismiss(&self, id: String) -> Result {
        remove(&self.jobs, &id).map(drop)
    }

    #[qmp]
    fn query_jobs(&self) -> Vec<Job> {
        self.jobs.lock().unwrap().values().cloned().collect()
    }

    /// Returns how many jobs there are.
    #[qmp(oob, unstable)]
    fn x_query_job_count(&self) -> usize {
        self.jobs.lock().unwrap().len()
    }

    fn start(&self, context: &Context, id: String, node: &str) -> Result {
        change(&self.nodes, node, |_| ())?;
        let job = Job { id: id.clone(), status: Running, speed: 0 };
        add(&self.jobs, id, job.clone())?;
        Ok(context.emit(&X_JOB_CHANGE, &job)?)
    }

    fn turn(&self, context: &Context, id: &str, from: &[JobStatus], to: JobStatus) -> Result {
        change(&self.jobs, id, |job| match from.contains(&job.status) {
            true => {
                job.status = to;
                Ok(context.emit(&X_JOB_CHANGE, job)?)
            }
            false => Err(Error::generic(format!("Job '{id}' does not allow this now"))),
        })?
    }
}

fn add<T>(table: &Table<T>, name: String, new: T) -> Result {
    let mut table = table.lock().unwrap();
    let exists = || Error::generic(format!("'{name}' exists already"));
    (!table.contains_key(&name)).then_some(()).ok_or_else(exists)?;
    table.insert(name, new);
    Ok(())
}

fn remove<T>(table: &Table<T>, name: &str) -> Result<T> {
    table.lock().unwrap().remove(name).ok_or_else(|| missing(name))
}

fn change<T, R>(table: &Table<T>, name: &str, change: impl FnOnce(&mut T) -> R) -> Result<R> {
    table.lock().unwrap().get_mut(name).map(change).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Error {
    Error::generic(format!("'{name}' not found"))
}

fn registry() -> std::result::Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.event(&X_JOB_CHANGE)?;
    Arc::new(Block::default()).register(&mut registry)?;
    Ok(registry)
}

fn main() {
    println!("{}", registry().unwrap().introspection().to_qapi());
}

/// Commands, their arguments, and a part of the answers.
#[cfg(test)]
const SESSION: &str = r#"
x-node-add | 'node-name': 'a' | {}
x-node-rename | 'node-name': 'a', 'new-name': 'b' | {}
x-node-set-label | 'node-name': 'b', 'label': 'root' | {}
x-node-lock | 'node-name': 'b' | {}
x-node-unlock | 'node-name': 'a' | 'a' not found
block_resize | 'node-name': 'b', 'size': 512 | {}
block-set-write-threshold | 'node-name': 'b', 'write-threshold': '7' | Parameter 'write-threshold' expects uint64
query-named-block-nodes | | "size": 512, "read-only": true, "threshold": 0, "label": "root"
block-commit | 'job-id': 'j', 'device': 'b' | "data": {"id": "j", "status": "running", "speed": 0}
block-stream | 'job-id': 'j', 'device': 'b' | 'j' exists already
block-job-set-speed | 'device': 'j', 'speed': 7 | {}
job-pause | 'id': 'j' | "status": "paused"
job-complete | 'id': 'j' | does not allow this now
job-resume | 'id': 'j' | "status": "running"
job-cancel | 'id': 'j' | "status": "concluded"
job-finalize | 'id': 'j' | does not allow this now
query-jobs | | [{"id": "j", "status": "concluded", "speed": 7}]
job-dismiss | 'id': 'j' | {}
blockdev-del | 'node-name': 'b' | {}
x-query-job-count | | {"return": 0}"#;

#[test]
fn each_command_answers() {
    let client = qmp_dispatch::LocalClient::new(registry().unwrap());
    for line in SESSION.trim().lines() {
        let parts: Vec<_> = line.splitn(3, '|').map(str::trim).collect();
        let request = format!("{{'execute': '{}', 'arguments': {{{}}}}}", parts[0], parts[1]);
        let said = client.ask(&request).concat();
        assert!(said.contains(parts[2]), "{line}: {said}");
    }
}
