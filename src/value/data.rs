//! DATA and named values: bytes, kept together with their key in one shared allocation.

use std::fmt;

use smallvec::SmallVec;
use triomphe::ThinArc;

/// An immutable key and value. Clones share the bytes, so a large value goes to the journal, a
/// snapshot or a reply without being copied; in a table it costs one pointer.
///
/// The header is the key's length; the slice is the key, then the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob(ThinArc<u8, u8>);

/// Keys and values that are together at most this long are joined on the stack.
const JOIN_BYTES: usize = 512;

impl Blob {
    /// A value without a key of its own: DATA entries have their id in the table.
    pub fn unnamed(value: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(0, value))
    }

    /// The value of a named key. The key has passed the limit of
    /// [`crate::limits::KEY_BYTES_MAX`]; one longer than 255 bytes would be cut.
    pub fn named(key: &[u8], value: &[u8]) -> Self {
        Self::joined(key, value, &[])
    }

    /// This key with `front` and `back` around its value.
    #[must_use]
    pub fn extended(&self, front: &[u8], back: &[u8]) -> Self {
        let mut value: SmallVec<[u8; JOIN_BYTES]> = SmallVec::new();
        value.extend_from_slice(front);
        value.extend_from_slice(self.value());
        Self::joined(self.key(), &value, back)
    }

    /// This key with another value.
    #[must_use]
    pub fn with_value(&self, value: &[u8]) -> Self {
        Self::joined(self.key(), value, &[])
    }

    fn joined(key: &[u8], value: &[u8], back: &[u8]) -> Self {
        let key_len = u8::try_from(key.len()).unwrap_or(u8::MAX);
        let key = key.get(..usize::from(key_len)).unwrap_or(key);
        let mut bytes: SmallVec<[u8; JOIN_BYTES]> = SmallVec::new();
        for part in [key, value, back] {
            bytes.extend_from_slice(part);
        }
        Self(ThinArc::from_header_and_slice(key_len, &bytes))
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let bytes = &self.0.slice;
        bytes
            .split_at_checked(usize::from(self.0.header.header))
            .unwrap_or((&[], bytes))
    }

    /// The key; empty for DATA.
    pub fn key(&self) -> &[u8] {
        self.split().0
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        self.split().1
    }

    /// What this takes on the heap, in bytes: count, header, length and slice, rounded as
    /// allocators round.
    pub fn heap_bytes(&self) -> usize {
        (3 * size_of::<usize>() + self.0.slice.len()).next_multiple_of(16)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}={}",
            self.key().escape_ascii(),
            self.value().escape_ascii()
        )
    }
}

/// What memcached's `incr` and `decr` make of a named value: the bytes that hold `number`. A
/// number shorter than the old value is padded with spaces to the old length, as memcached,
/// which edits in place, has always done.
pub fn number_in_place(number: u64, old_len: usize) -> SmallVec<[u8; 24]> {
    let mut text = SmallVec::from_slice(itoa::Buffer::new().format(number).as_bytes());
    if text.len() < old_len {
        text.resize(old_len, b' ');
    }
    text
}

/// Reads a named value as memcached's `incr` does: a decimal number that fits 64 bits, with
/// spaces allowed around it. `None` is "non-numeric".
pub fn number_of(value: &[u8]) -> Option<u64> {
    crate::key::decimal(value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_keeps_key_and_value_apart() {
        let blob = Blob::named(b"key", b"value");
        assert_eq!((blob.key(), blob.value()), (&b"key"[..], &b"value"[..]));
        let blob = blob.extended(b"<", b">");
        assert_eq!((blob.key(), blob.value()), (&b"key"[..], &b"<value>"[..]));
        assert_eq!(blob.with_value(b"").value(), b"");
        assert_eq!(Blob::unnamed(b"v").key(), b"");
    }

    #[test]
    fn a_blob_in_a_table_is_one_pointer() {
        assert_eq!(size_of::<Blob>(), 8);
        assert_eq!(size_of::<Option<Blob>>(), 8);
    }

    #[test]
    fn a_shrinking_number_is_padded_as_memcached_pads_it() {
        assert_eq!(&number_in_place(9, 2)[..], b"9 ");
        assert_eq!(&number_in_place(100, 2)[..], b"100");
        assert_eq!(number_of(b"9 "), Some(9));
        assert_eq!(number_of(b"18446744073709551615"), Some(u64::MAX));
        for text in ["", " ", "18446744073709551616", "-1", "1 2", "1a", "+1"] {
            assert_eq!(number_of(text.as_bytes()), None, "{text:?}");
        }
    }
}
