//! The one place where ractor is sent something.

use ractor::{ActorRef, Message, MessagingErr};

/// Sends within the kit: the token that wakes a guard, of which there is one at
/// a time, and the few messages that supervisors get. Gives back what nobody took.
#[expect(clippy::disallowed_methods, reason = "what is meant to be used instead is made from it")]
pub(super) fn tell<M: Message>(actor: &ActorRef<M>, message: M) -> Result<(), MessagingErr<M>> {
    actor.send_message(message)
}
