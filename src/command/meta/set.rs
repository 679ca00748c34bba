//! `ms`: the storage commands as one, with a condition on the cas unique of any of them.

use super::{MetaKey, MetaReply, Status, differs_unless_0, forbid_mark, forbid_unique, together};
use crate::command::put::{Body, Mode, Put};
use crate::command::{Change, Context, Exptime, Outcome, Place, Refusal, Reply, View, ViewValue};
use crate::value::{Index, Marks, Value, counter};

/// What `ms` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Set<'a> {
    /// `M`: which storage command, other than `cas`.
    pub mode: Mode,
    /// `C`: the entry must have this cas unique.
    pub compare: Option<u64>,
    /// `E`: the cas unique that the entry gets.
    pub unique: Option<u64>,
    /// `I`: a value that is older than the entry's is stored all the same, as a stale one.
    pub invalidate: bool,
    /// `N`: what to add to is made on a miss, with this expiry.
    pub vivify: Option<Exptime>,
    /// `F`: the client's flags.
    pub flags: u32,
    /// `T`: when the entry ends.
    pub exptime: Exptime,
    /// `s`: the length is shown.
    pub shows_size: bool,
    /// The data block.
    pub body: &'a [u8],
}

impl<'a> Set<'a> {
    /// The storage command that this is, but for its own conditions.
    fn put(&self, key: &'a [u8]) -> Put<'a> {
        Put {
            key,
            mode: self.mode,
            flags: self.flags,
            exptime: self.exptime,
            body: self.body,
        }
    }

    /// Reads the body as what `place` holds.
    pub fn prepare(&self, key: &'a MetaKey<'a>, place: Place<'a>) -> Body<'a> {
        self.put(key.bytes()).prepare(place)
    }

    /// The rules.
    pub fn decide(
        &self,
        key: &'a MetaKey<'a>,
        (place, body): (Place<'a>, Body<'a>),
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        forbid_unique(self.unique, place)?;
        forbid_mark("flag I", self.invalidate, place)?;
        let mut put = self.put(key.bytes());
        let mut body = body;
        let is_older = |old: &View<'_>| self.compare.is_some_and(|it| it != 0 && it < old.cas);
        let stale = old.filter(|old| self.invalidate && is_older(old));
        let mut marks = Marks::NONE;
        match (self.mode, self.compare, self.vivify) {
            (Mode::Set | Mode::Replace, Some(_), _) if let Some(old) = stale => {
                marks = Marks::STALE.and(old.marks().without(Marks::BINARY));
                put.mode = Mode::Set;
                // The old entry lives on in all but its value and flags.
                put.exptime = Exptime(0);
            }
            (Mode::Set | Mode::Replace, Some(unique), _) => put.mode = Mode::Cas(unique),
            (Mode::Append | Mode::Prepend, unique, _) if differs_unless_0(unique, old) => {
                return Ok(Outcome::keep(MetaReply::without(Status::Exists).into()));
            }
            (Mode::Append | Mode::Prepend, _, Some(exptime)) if old.is_none() => {
                put.exptime = exptime;
                if matches!(body, Body::Bytes(_)) {
                    put.mode = Mode::Set;
                    body = put.prepare(place);
                }
            }
            (_, _, _) => {}
        }
        let mut outcome = put.decide(place, body, old, ctx)?;
        if let (Some(old), Some(Change::Put { expires, .. })) = (stale, &mut outcome.change) {
            *expires = old.expires;
        }
        if key.is_binary() {
            marks = marks.and(Marks::BINARY);
        }
        Ok(self.completed(place, outcome, old, marks))
    }

    /// The outcome of the storage command, with what this command adds to it.
    fn completed(
        &self,
        place: Place<'a>,
        outcome: Outcome<'a>,
        old: Option<View<'_>>,
        marks: Marks,
    ) -> Outcome<'a> {
        let Some(status) = status(&outcome.reply) else {
            return outcome;
        };
        let mut reply = MetaReply::without(status);
        let key = place.key;
        reply.seen.size = Some(self.body.len());
        let mut changes = Vec::new();
        if let Some(change) = outcome.change {
            reply.seen.unique = self.unique;
            match &change {
                Change::Put {
                    value: Value::Number(number),
                    flags,
                    expires,
                    ..
                } => reply.seen.unique = Some(counter::cas(*number, *flags, *expires)),
                Change::Put { value, .. } => {
                    reply.seen.size = Some(ViewValue::of(value).text_len());
                    if marks != Marks::NONE {
                        changes.push(Change::Mark { key, marks });
                    }
                }
                Change::Extend { bytes, .. } => {
                    let before = old.map_or(0, |old| old.value.text_len());
                    reply.seen.size = Some(before + bytes.len());
                }
                Change::Members { added, removed, .. } if self.shows_size => {
                    let after = |index: &Index| index.text_len_after(added, removed);
                    reply.seen.size = Some(match old.map(|old| old.value) {
                        Some(ViewValue::Index(index)) => after(index),
                        Some(_) | None => after(&Index::default()),
                    });
                }
                _ => {}
            }
            if let (Change::Put { .. } | Change::Extend { .. }, Some(_)) = (&change, self.unique) {
                let unique = self.unique;
                changes.push(Change::Unique { key, unique });
            }
            changes.insert(0, change);
        } else if let (Some(ViewValue::Index(index)), Status::Done) =
            (old.map(|old| old.value), status)
        {
            // No member was added.
            reply.seen.size = Some(index.text_len());
        }
        Outcome {
            reply: reply.into(),
            change: together(changes),
        }
    }
}

/// What the reply to a storage command says of `ms`.
fn status(reply: &Reply) -> Option<Status> {
    match reply {
        Reply::Stored => Some(Status::Done),
        Reply::NotStored => Some(Status::NotStored),
        Reply::Exists => Some(Status::Exists),
        Reply::NotFound => Some(Status::NotFound),
        Reply::Deleted
        | Reply::Touched
        | Reply::Ok
        | Reply::Number(_)
        | Reply::Hits(_)
        | Reply::Meta(_) => None,
    }
}
