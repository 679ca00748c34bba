//! `get gets gat gats`: one or many keys, with or without a new expiry.

use smallvec::SmallVec;

use super::{Change, Context, Exptime, Hit, View};
use crate::key::Key;

/// A retrieval command.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch<'a> {
    /// The keys as sent, in order.
    pub keys: SmallVec<[&'a [u8]; 1]>,
    /// For `gat` and `gats`: the new expiry of what is found.
    pub touch: Option<Exptime>,
}

impl Fetch<'_> {
    /// What a reply says of one found entry.
    pub fn hit(key: Key<'_>, view: View<'_>) -> Hit {
        Hit {
            value: view.value.to_value(),
            class: key.class(),
            flags: view.flags,
            cas: view.cas,
        }
    }
}

/// A new expiry for an entry, if it is there; it is gone at once if that is in the past.
pub fn touch<'a>(
    key: Key<'a>,
    exptime: Exptime,
    old: Option<View<'_>>,
    ctx: &Context<'_>,
) -> Option<Change<'a>> {
    old?;
    let expires = exptime.resolve(ctx.now);
    Some(if expires.is_past(ctx.now) {
        Change::Remove { key }
    } else {
        Change::Expire { key, expires }
    })
}
