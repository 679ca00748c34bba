//! `md`: an entry goes; or it stays, marked as stale, or stays without its value.

use super::{MetaReply, Status, differs, empty_value, forbid_mark, forbid_unique, together};
use crate::command::{Change, Context, Exptime, Outcome, Place, Refusal, View};
use crate::value::Marks;

/// What `md` asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delete {
    /// `C`: the entry must have this cas unique.
    pub compare: Option<u64>,
    /// `E`: the cas unique that an entry gets that stays.
    pub unique: Option<u64>,
    /// `I`: the entry stays and is stale: the next client that sees it is to store it anew.
    pub invalidate: bool,
    /// `x`: the entry stays without its value.
    pub empty: bool,
    /// `F`: the client's flags of an entry that stays without its value.
    pub client_flags: u32,
    /// `T`: when an entry ends that stays.
    pub exptime: Option<Exptime>,
}

impl Delete {
    /// The rules.
    pub fn decide<'a>(
        &self,
        place: Place<'a>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        forbid_mark("flag I", self.invalidate, place)?;
        forbid_mark("flag x", self.empty, place)?;
        forbid_unique(self.unique, place)?;
        let Some(old) = old else {
            return Ok(Outcome::keep(MetaReply::without(Status::NotFound).into()));
        };
        if differs(self.compare, Some(old)) {
            return Ok(Outcome::keep(MetaReply::without(Status::Exists).into()));
        }
        let key = place.key;
        let changes = if self.invalidate || self.empty {
            self.keep(place, old, ctx)
        } else {
            vec![Change::Remove { key }]
        };
        Ok(Outcome {
            reply: MetaReply::without(Status::Done).into(),
            change: together(changes),
        })
    }

    /// What changes of an entry that stays.
    fn keep<'a>(&self, place: Place<'a>, old: View<'_>, ctx: &Context<'_>) -> Vec<Change<'a>> {
        let key = place.key;
        let expires = self.exptime.map(|exptime| exptime.resolve(ctx.now));
        if expires.is_some_and(|expires| expires.is_past(ctx.now)) {
            return vec![Change::Remove { key }];
        }
        let mut changes = Vec::new();
        let mut marks = old.marks().without(Marks::WON);
        if self.empty {
            marks = Marks::NONE;
            changes.push(Change::Put {
                key,
                value: empty_value(place),
                flags: self.client_flags,
                expires: expires.unwrap_or_default(),
            });
        } else if let Some(expires) = expires {
            changes.push(Change::Expire { key, expires });
        }
        if self.invalidate {
            let marks = marks.and(Marks::STALE);
            changes.push(Change::Mark { key, marks });
        }
        let unique = self.unique.or((!self.invalidate).then_some(old.cas));
        changes.push(Change::Unique { key, unique });
        changes
    }
}
