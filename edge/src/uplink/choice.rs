//! Which brain to call, when somebody wants another one.

use url::Url;

/// An address that fails so often in a row is given up for the former one.
const FAILURES_MAX: u32 = 3;

/// The address in use, and one that has yet to prove itself.
///
/// A wrong address must not cut a device off for good: a new one is kept only after a session
/// with it, and the former comes back when it fails.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerChoice {
    kept: Url,
    wanted: Option<Url>,
    failures: u32,
    given_up: Option<Url>,
}

impl ServerChoice {
    /// Calls `kept` until another address is wanted.
    pub fn new(kept: Url) -> Self {
        Self { kept, wanted: None, failures: 0, given_up: None }
    }

    /// Somebody wants this address. Returns whether that changes whom to call.
    pub fn want(&mut self, wanted: Option<Url>) -> bool {
        let before = self.next().clone();
        let wanted = wanted.filter(|url| *url != self.kept);
        if wanted != self.wanted && wanted != self.given_up {
            self.given_up = None;
            self.failures = 0;
            self.wanted = wanted;
        }
        *self.next() != before
    }

    /// Whom to call.
    pub fn next(&self) -> &Url {
        self.wanted.as_ref().unwrap_or(&self.kept)
    }

    /// A session was established. Returns the address to keep from now on, if it is new.
    pub fn succeeded(&mut self) -> Option<&Url> {
        self.failures = 0;
        self.kept = self.wanted.take()?;
        Some(&self.kept)
    }

    /// A call failed. Returns the address that is given up, if it is.
    pub fn failed(&mut self) -> Option<&Url> {
        self.failures += 1;
        if self.wanted.is_none() || self.failures < FAILURES_MAX {
            return None;
        }
        self.failures = 0;
        self.given_up = self.wanted.take();
        self.given_up.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str) -> Url {
        Url::parse(&format!("wss://{host}")).expect("an address")
    }

    #[test]
    fn a_new_address_is_kept_after_a_session() {
        let mut choice = ServerChoice::new(url("old"));
        assert!(choice.want(Some(url("new"))));
        assert_eq!(*choice.next(), url("new"));
        assert_eq!(choice.succeeded(), Some(&url("new")));
        assert_eq!(choice.succeeded(), None);
    }

    #[test]
    fn an_address_that_fails_is_given_up_until_another_is_wanted() {
        let mut choice = ServerChoice::new(url("old"));
        choice.want(Some(url("bad")));
        assert!(choice.failed().is_none());
        assert!(choice.failed().is_none());
        assert_eq!(choice.failed(), Some(&url("bad")));
        assert!(!choice.want(Some(url("bad"))));
        assert_eq!(*choice.next(), url("old"));
        assert!(choice.want(Some(url("good"))));
        assert!(choice.want(Some(url("bad"))));
    }

    #[test]
    fn the_kept_address_is_never_given_up() {
        let mut choice = ServerChoice::new(url("old"));
        assert!((0..10).all(|_| choice.failed().is_none()));
    }
}
