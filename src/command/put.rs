//! `set add replace append prepend cas`: one struct with a mode, one set of rules.

use std::borrow::Cow;
use std::sync::Arc;

use super::change::{Change, Side};
use super::{Context, Exptime, Holds, Outcome, Place, Refusal, Reply, View, ViewValue};
use crate::key::{Key, TypedKey};
use crate::types::Kind;
use crate::value::index::MemberError;
use crate::value::{Blob, Index, Member, Value, counter, index};

/// A storage command.
#[derive(Clone, Debug, PartialEq)]
pub struct Put<'a> {
    /// The key as sent.
    pub key: &'a [u8],
    /// Under which condition, and where the body goes.
    pub mode: Mode,
    /// The client's flags.
    pub flags: u32,
    /// When the entry ends.
    pub exptime: Exptime,
    /// The data block.
    pub body: &'a [u8],
}

/// Which storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Always.
    Set,
    /// If the key is not there.
    Add,
    /// If the key is there.
    Replace,
    /// After the bytes that are there; adds members to an INDEX.
    Append,
    /// Before the bytes that are there; removes members from an INDEX.
    Prepend,
    /// If the entry's cas unique is still this one.
    Cas(u64),
}

impl Mode {
    fn verb(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Prepend => "prepend",
            Self::Cas(_) => "cas",
        }
    }
}

/// A body, read as what the key holds. Made before any lock is taken; a body that does not fit
/// is an error only once the rules get to it ("existence before parsing").
#[derive(Debug)]
pub enum Body<'a> {
    /// A counter's number, if it is one.
    Number(Option<u64>),
    /// An index to store.
    Index(Result<Arc<Index>, MemberError>),
    /// Members to add or to remove.
    Members(Result<Vec<Member>, MemberError>),
    /// A value to store.
    Data(Blob),
    /// Bytes to add to a value.
    Bytes(&'a [u8]),
}

impl<'a> Put<'a> {
    /// Reads the body as what `place` holds.
    pub fn prepare(&self, place: Place<'_>) -> Body<'a> {
        let extends = matches!(self.mode, Mode::Append | Mode::Prepend);
        match (place.holds, place.key) {
            (Holds::Kind(kind @ (Kind::Counter | Kind::Counter64)), _) => {
                Body::Number(counter::parse(self.body, kind))
            }
            (Holds::Kind(Kind::Index), _) if extends => Body::Members(index::parse(self.body)),
            (Holds::Kind(Kind::Index), _) => Body::Index(
                index::parse(self.body).map(|members| Arc::new(Index::from_members(members))),
            ),
            (Holds::Kind(Kind::Data) | Holds::Named, _) if extends => Body::Bytes(self.body),
            (Holds::Kind(Kind::Data) | Holds::Named, Key::Named(name)) => {
                Body::Data(Blob::named(name, self.body))
            }
            (Holds::Kind(Kind::Data) | Holds::Named, Key::Typed(_)) => {
                Body::Data(Blob::unnamed(self.body))
            }
        }
    }

    /// The rules.
    pub fn decide(
        &self,
        place: Place<'a>,
        body: Body<'a>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        let unmet = match (self.mode, old) {
            (Mode::Add, Some(_)) | (Mode::Replace, None) => Some(Reply::NotStored),
            (Mode::Cas(_), None) => Some(Reply::NotFound),
            (Mode::Cas(unique), Some(old)) if old.cas != unique => Some(Reply::Exists),
            (Mode::Append | Mode::Prepend, _) => return self.extend(place, body, old, ctx),
            (Mode::Set | Mode::Add | Mode::Replace | Mode::Cas(_), _) => None,
        };
        match unmet {
            Some(reply) => Ok(Outcome::keep(reply)),
            None => self.store(place, body, old, ctx),
        }
    }

    fn store(
        &self,
        place: Place<'a>,
        body: Body<'a>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        let key = place.key;
        let expires = self.exptime.resolve(ctx.now);
        if expires.is_past(ctx.now) {
            // What is expired at once stores nothing and is not parsed; the old entry goes.
            let change = old.map(|_| Change::Remove { key });
            return Ok(Outcome {
                reply: Reply::Stored,
                change,
            });
        }
        let value = self.value(place, body, ctx)?;
        let change = Change::Put {
            key,
            value,
            flags: self.flags,
            expires,
        };
        Ok(Outcome::with(Reply::Stored, change))
    }

    fn value(&self, place: Place<'_>, body: Body<'_>, ctx: &Context<'_>) -> Result<Value, Refusal> {
        match (body, place.key, place.holds) {
            (Body::Number(number), Key::Typed(key), Holds::Kind(kind)) => {
                let counting = ctx.counting(key.prefix, kind);
                let number = number.filter(|number| counting.holds(*number));
                number
                    .map(Value::Number)
                    .ok_or_else(|| Refusal::NotANumber {
                        key,
                        kind,
                        min: counting.min,
                        max: counting.max,
                        got: excerpt(self.body),
                    })
            }
            (Body::Index(Ok(index)), ..) => Ok(Value::Index(index)),
            (Body::Data(blob), ..) => Ok(Value::Data(blob)),
            (body, ..) => Err(self.misfit(place, body)),
        }
    }

    fn wrong_kind(&self, key: TypedKey, kind: Kind) -> Refusal {
        let verb = self.mode.verb();
        Refusal::WrongKind { verb, key, kind }
    }

    /// Why a body is not what its key holds.
    fn misfit(&self, place: Place<'_>, body: Body<'_>) -> Refusal {
        match (place.key, place.holds, body) {
            (Key::Typed(key), _, Body::Index(Err(error)) | Body::Members(Err(error))) => {
                Refusal::Member { key, error }
            }
            (Key::Typed(key), Holds::Kind(kind), _) => self.wrong_kind(key, kind),
            (Key::Typed(_) | Key::Named(_), _, _) => Refusal::NonNumeric,
        }
    }

    fn extend(
        &self,
        place: Place<'a>,
        body: Body<'a>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        match (body, place.key) {
            (Body::Members(members), Key::Typed(key)) if self.mode == Mode::Prepend => {
                remove_members(key, members, old)
            }
            (Body::Members(members), Key::Typed(key)) => self.add_members(key, members, old, ctx),
            (Body::Bytes(bytes), key) => Ok(self.extend_data(key, bytes, old, ctx)),
            (_, Key::Typed(key)) if let Holds::Kind(kind) = place.holds => {
                Err(self.wrong_kind(key, kind))
            }
            (body, _) => Err(self.misfit(place, body)),
        }
    }

    fn extend_data(
        &self,
        key: Key<'a>,
        bytes: &'a [u8],
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Outcome<'a> {
        let Some(View {
            value: ViewValue::Data(blob),
            ..
        }) = old
        else {
            return Outcome::keep(Reply::NotStored);
        };
        // As memcached, which tells of a body only that is too large on its own.
        if blob.len() + bytes.len() > ctx.value_bytes_max {
            return Outcome::keep(Reply::NotStored);
        }
        let side = if self.mode == Mode::Prepend {
            Side::Front
        } else {
            Side::Back
        };
        Outcome::with(Reply::Stored, Change::Extend { key, side, bytes })
    }

    fn add_members(
        &self,
        key: TypedKey,
        members: Result<Vec<Member>, MemberError>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        let create = match old {
            Some(_) => None,
            None => Some((self.flags, self.exptime.resolve(ctx.now))),
        };
        if create.is_some_and(|(_, expires)| expires.is_past(ctx.now)) {
            return Ok(Outcome::keep(Reply::Stored));
        }
        let added = members.map_err(|error| Refusal::Member { key, error })?;
        if added.is_empty() && create.is_none() {
            return Ok(Outcome::keep(Reply::Stored));
        }
        if outgrows(old, &added, ctx.members_max) {
            return Err(Refusal::TooManyMembers {
                key,
                max: ctx.members_max,
            });
        }
        let (added, removed) = (Cow::Owned(added), Cow::Borrowed(&[][..]));
        Ok(Outcome::with(
            Reply::Stored,
            Change::Members {
                key,
                create,
                added,
                removed,
            },
        ))
    }
}

fn remove_members<'a>(
    key: TypedKey,
    members: Result<Vec<Member>, MemberError>,
    old: Option<View<'_>>,
) -> Result<Outcome<'a>, Refusal> {
    let Some(View {
        value: ViewValue::Index(index),
        ..
    }) = old
    else {
        return Ok(Outcome::keep(Reply::NotStored));
    };
    let members = members.map_err(|error| Refusal::Member { key, error })?;
    let removed: Vec<u32> = members
        .iter()
        .map(|member| member.id)
        .filter(|id| index.contains(*id))
        .collect();
    if removed.is_empty() {
        return Ok(Outcome::keep(Reply::NotStored));
    }
    let (added, removed) = (Cow::Borrowed(&[][..]), Cow::Owned(removed));
    Ok(Outcome::with(
        Reply::Stored,
        Change::Members {
            key,
            create: None,
            added,
            removed,
        },
    ))
}

/// True if there would be more than `max` members; counted one by one only if that may be.
fn outgrows(old: Option<View<'_>>, added: &[Member], max: usize) -> bool {
    let Some(View {
        value: ViewValue::Index(index),
        ..
    }) = old
    else {
        return added.len() > max;
    };
    let new = || added.iter().filter(|member| !index.contains(member.id));
    index.len() + added.len() > max && index.len() + new().count() > max
}

/// The start of a body, for an error line.
fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 32;
    let shown = body.get(..SHOWN).unwrap_or(body).escape_ascii().to_string();
    if body.len() > SHOWN {
        shown + "..."
    } else {
        shown
    }
}
