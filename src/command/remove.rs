//! `delete touch`: the entry goes, now or at another time.

use super::{Change, Context, Exptime, Outcome, Reply, View, fetch};
use crate::key::Key;

/// The rule of `delete`.
pub fn delete<'a>(key: Key<'a>, old: Option<View<'_>>) -> Outcome<'a> {
    match old {
        Some(_) => Outcome::with(Reply::Deleted, Change::Remove { key }),
        None => Outcome::keep(Reply::NotFound),
    }
}

/// The rule of `touch`.
pub fn touch<'a>(
    key: Key<'a>,
    exptime: Exptime,
    old: Option<View<'_>>,
    ctx: &Context<'_>,
) -> Outcome<'a> {
    match fetch::touch(key, exptime, old, ctx) {
        Some(change) => Outcome::with(Reply::Touched, change),
        None => Outcome::keep(Reply::NotFound),
    }
}
