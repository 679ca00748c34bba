//! `stats items` and `stats slabs`: figures for each class, which is a type or the named keys.

use std::collections::BTreeMap;

use super::super::shared::Shared;
use crate::key::NAMED_CLASS;
use crate::protocol::memcached::encode::stat;
use crate::stats::{Counts, PerClass};
use crate::store::sizes::Sizes;

/// What is known of each class, that of the named keys being the last.
fn classes(shared: &Shared) -> BTreeMap<u32, (Sizes, Counts)> {
    let (types, named) = shared.engine().store().sizes();
    let types = types
        .into_iter()
        .map(|(prefix, sizes)| (prefix.into(), (sizes, Counts::default())));
    let named = (NAMED_CLASS, (named, Counts::default()));
    let mut classes: BTreeMap<_, _> = types.chain([named]).collect();
    for (class, counts) in shared.counted_in_classes() {
        // A type may be gone that was counted.
        classes.entry(class).or_default().1 = counts;
    }
    classes
}

/// Figures of the lists and of the crawler that memcached keeps a class in, and here is none: no
/// class has an oldest entry that is known without looking at all of them.
const NOTHING: &[&str] = &[
    "number_hot",
    "number_warm",
    "age_hot",
    "age_warm",
    "age",
    "tailrepairs",
    "crawler_reclaimed",
    "crawler_items_checked",
    "lrutail_reflocked",
    "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
    "direct_reclaims",
    "hits_to_hot",
    "hits_to_warm",
    "hits_to_cold",
    "hits_to_temp",
];

/// Writes `stats items`: the classes that have entries, and those that found no memory for any.
pub(super) fn items(shared: &Shared, out: &mut Vec<u8>) {
    for (class, (sizes, counts)) in classes(shared) {
        let refused = counts.get(PerClass::OutOfMemory);
        if sizes.entries == 0 && refused == 0 {
            continue;
        }
        let (entries, bytes, gone) = (sizes.entries as u64, sizes.bytes as u64, sizes.gone);
        for (name, figure) in [
            ("number", entries),
            // Without segments memcached has a class in one list: this one.
            ("number_cold", entries),
            ("mem_requested", bytes),
            ("evicted", gone.evicted),
            ("evicted_nonzero", gone.evicted_nonzero),
            ("evicted_time", gone.evicted_time_s),
            ("outofmemory", refused),
            ("evicted_unfetched", gone.evicted_unfetched),
            ("evicted_active", gone.evicted_active),
            ("reclaimed", gone.reclaimed),
            ("expired_unfetched", gone.expired_unfetched),
        ] {
            stat(&format!("items:{class}:{name}"), figure, out);
        }
        for name in NOTHING {
            stat(&format!("items:{class}:{name}"), 0, out);
        }
    }
}

/// Writes `stats slabs`: the classes that have entries, or of which something was counted, so that
/// the sum is the general figure. A class is one page, and each entry a chunk of the mean size.
pub(super) fn slabs(shared: &Shared, out: &mut Vec<u8>) {
    let mut classes = classes(shared);
    classes.retain(|_, (sizes, counts)| sizes.entries > 0 || !counts.is_empty());
    for (class, (sizes, counts)) in &classes {
        let (entries, bytes) = (sizes.entries as u64, sizes.bytes as u64);
        for (name, figure) in [
            ("chunk_size", bytes.div_ceil(entries.max(1)).max(1)),
            ("chunks_per_page", entries),
            ("total_pages", 1),
            ("total_chunks", entries),
            ("used_chunks", entries),
            ("free_chunks", 0),
            ("free_chunks_end", 0),
            ("get_hits", counts.get(PerClass::GetHits)),
            ("cmd_set", counts.get(PerClass::CmdSet)),
            ("delete_hits", counts.get(PerClass::DeleteHits)),
            ("incr_hits", counts.get(PerClass::IncrHits)),
            ("decr_hits", counts.get(PerClass::DecrHits)),
            ("cas_hits", counts.get(PerClass::CasHits)),
            ("cas_badval", counts.get(PerClass::CasBadval)),
            ("touch_hits", counts.get(PerClass::TouchHits)),
        ] {
            stat(&format!("{class}:{name}"), figure, out);
        }
    }
    stat("active_slabs", classes.len(), out);
    let bytes = classes.values().map(|(sizes, _)| sizes.bytes);
    stat("total_malloced", bytes.sum::<usize>(), out);
}
