//! Tasks that are nodes: seen in the tree, guarded, and not restarted.
//!
//! An actor costs some seven kilobytes. What lives by itself and is sent nothing, such as the task
//! that holds a connection, needs none of that, and is still to be seen and accounted for.

use std::{pin::Pin, sync::Arc};

use super::{
    core::{Decision, Incarnation},
    crash::{Crash, Fault, Verdict},
    guard::caught,
    node::NodeError,
    shell::Env,
    spec::ChildId,
    tree::{NodeCell, Status, TreePath},
};

/// A task's place in the tree; it is given up when this is dropped.
pub(super) struct TaskNode {
    env: Arc<Env>,
    cell: Arc<NodeCell>,
    /// It came to its end, and what is to be told of that is told.
    over: bool,
}

impl TaskNode {
    /// Takes a place below `parent`.
    pub(super) fn enter(env: &Arc<Env>, parent: &TreePath, id: &str, kind: &'static str) -> Self {
        let mut id = id.to_owned();
        loop {
            let child = ChildId::from(id.as_str());
            let path = parent.child(&child);
            let cell = NodeCell::new(path.clone(), child, kind, None, env.tree.changed());
            if let Some(cell) = env.tree.enter(&path, cell) {
                cell.begin(Incarnation(1), env.tree.now());
                cell.set_status(Status::Running);
                return Self { env: Arc::clone(env), cell, over: false };
            }
            id.push('+');
        }
    }

    pub(super) fn cell(&self) -> &Arc<NodeCell> {
        &self.cell
    }

    /// Runs the task to its end.
    pub(super) async fn run(
        mut self,
        mut task: Pin<Box<impl Future<Output = Result<(), NodeError>>>>,
    ) {
        let fault = match caught(task.as_mut()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Fault::of(&*error)),
            Err(fault) => Some(fault),
        };
        self.over = true;
        if let Some(fault) = fault {
            self.tell(fault);
        }
    }

    fn tell(&self, fault: Fault) {
        let crash = Arc::new(Crash {
            path: self.cell.path().clone(),
            kind: self.cell.kind(),
            incarnation: self.cell.incarnation(),
            label: None,
            digest: None,
            trace_id: None,
            fault,
            uptime: self.env.tree.now().saturating_sub(self.cell.born()),
        });
        self.cell.crashed(Arc::clone(&crash));
        self.env.record(&crash, Verdict { decision: Decision::LetGo, failures: 0 });
    }
}

impl Drop for TaskNode {
    fn drop(&mut self) {
        // Else it ends with its owner, whose end is told.
        if !self.over && self.cell.was_killed() {
            self.tell(Fault::Killed);
        }
        self.env.tree.remove(self.cell.path());
    }
}
