//! Catching panics together with where they came from.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Once,
    task::Poll,
};

use crate::supervise::crash::Fault;

thread_local! {
    /// This thread is inside [`catch`], so the panic will be reported.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic under guard came from.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has panics note their location when they are under guard.
///
/// A hook is the only place that learns it. Panics elsewhere go to the hook
/// that was there before.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // While a thread ends, its locals may be gone.
            if GUARDED.try_with(Cell::get).unwrap_or(false) {
                let location = panic.location().map(ToString::to_string);
                let _ = LOCATION.try_with(|slot| slot.replace(location));
            } else {
                before(panic);
            }
        }));
    });
}

/// Runs it, and turns a panic into a fault.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Fault> {
    let outer = GUARDED.replace(true);
    // What a panic leaves half done is thrown away with its incarnation.
    let result = catch_unwind(AssertUnwindSafe(run));
    GUARDED.set(outer);
    result
        .map_err(|payload| Fault::Panic { message: message(&*payload), location: LOCATION.take() })
}

/// Awaits it, and turns a panic into a fault.
///
/// It is pinned by the caller: given by value it would take its room twice, in every actor.
pub(crate) async fn caught<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Fault> {
    poll_fn(|context| match catch(|| future.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(fault) => Poll::Ready(Err(fault)),
    })
    .await
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is no text".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_location() {
        install_hook();
        let fault = catch(|| panic!("no {}", "luck")).unwrap_err();
        let Fault::Panic { message, location } = fault else {
            panic!("{fault:?}");
        };
        assert_eq!(message, "no luck");
        assert!(location.unwrap().contains("panics.rs"));
    }
}
