//! Tasks that end with their owner.

use std::sync::{Mutex, PoisonError};

use tokio::task::{AbortHandle, JoinSet};

/// A set of tasks that is aborted when it is dropped.
///
/// It allocates nothing until the first task: most nodes never have one.
#[derive(Default)]
pub(super) struct Tasks(Mutex<Option<JoinSet<()>>>);

impl Tasks {
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = tasks.get_or_insert_with(JoinSet::new);
        // Finished tasks stay in the set until they are taken out.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(future)
    }

    pub(super) fn abort(&self) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(tasks);
    }
}
