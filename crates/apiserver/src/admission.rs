//! What may be written only in view of the other objects: the rules of kinds whose objects share something.

use std::fmt::Debug;

use serde_json::Value;

use crate::cause::Cause;
use crate::store::{Key, Transaction};

/// The rules of a kind that look at its other objects, and what they give out.
///
/// They run inside the transaction of the write: nobody else writes meanwhile, and what they put into the
/// object is given out exactly when the object is stored.
pub trait Admission: Debug + Send + Sync {
    /// Completes `new`, which is to be made, or to take the place of `old`. It has been checked against its schema
    /// and has its defaults.
    ///
    /// # Errors
    /// Why it cannot be written.
    fn admit(&self, old: Option<&Value>, new: &mut Value, others: &Others<'_>) -> Result<(), Refusal>;
}

/// Why an object cannot be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The object is wrong.
    Invalid(Vec<Cause>),
    /// The object is right, and what it needs cannot be had.
    Internal(String),
}

/// What the other objects of a kind have, while one of them is written.
#[derive(Debug)]
pub struct Others<'a> {
    transaction: &'a Transaction<'a>,
    key: &'a Key,
}

impl<'a> Others<'a> {
    /// All but the object at `key`.
    pub(crate) fn new(transaction: &'a Transaction<'a>, key: &'a Key) -> Self {
        Self { transaction, key }
    }

    /// Whether one of them claims this, by the [`claims`](crate::Rules::claims) of the kind.
    pub fn claim(&self, claim: &str) -> bool {
        self.transaction
            .holder(self.key.resource, claim)
            .is_some_and(|holder| holder != self.key)
    }
}
