//! DATA and named values: bytes, kept together with their key in one shared allocation; or, for
//! a large value of a type that says so, only the place in a data file where the bytes are.

use std::fmt;

use smallvec::SmallVec;

use super::block::Block;
use super::head::{Attributes, Head, Marks};
use crate::clock::{Expiry, Time};
use crate::codec::{CodecError, Reader, put_u32, put_u64};

/// A key and a value, with the header of the item that they are or may become. Clones share the
/// bytes, so a large value goes to the journal, a snapshot or a reply without being copied; in a
/// table it costs one pointer.
///
/// The bytes are the key, then the value; or the encoded [`Place`] of the value. The extra number
/// of the block, which a typed key without an expiry does not need, is an `Extra`.
#[derive(Clone)]
pub struct Blob(Block<Head>);

/// When the item ends and how long its named key is; 0 for never and for a typed key.
#[derive(Clone, Copy)]
struct Extra {
    expires: Expiry,
    key_len: u8,
}

impl Extra {
    /// The bits of an expiry: [`Expiry::LATEST`] has no more.
    const EXPIRY_BITS: u32 = 48;

    fn pack(self) -> u64 {
        let ms = self.expires.time().map_or(0, |time| time.0);
        ms | u64::from(self.key_len) << Self::EXPIRY_BITS
    }

    fn unpack(bits: u64) -> Self {
        let ms = bits & ((1 << Self::EXPIRY_BITS) - 1);
        Self {
            expires: if ms == 0 {
                Expiry::NEVER
            } else {
                Expiry::at(Time(ms))
            },
            key_len: u8::try_from(bits >> Self::EXPIRY_BITS).unwrap_or_default(),
        }
    }
}

/// Where the bytes of a value are that memory does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The data file, as the journal numbers them; 0 is none.
    pub file: u64,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
    /// Their CRC-32C.
    pub crc: u32,
}

impl Place {
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        put_u64(&mut bytes, self.file);
        put_u64(&mut bytes, self.offset);
        put_u32(&mut bytes, self.len);
        put_u32(&mut bytes, self.crc);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            file: reader.u64()?,
            offset: reader.u64()?,
            len: reader.u32()?,
            crc: reader.u32()?,
        })
    }
}

/// What there is of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'b> {
    /// Its bytes.
    Here(&'b [u8]),
    /// Where its bytes are.
    Away(Place),
}

impl Blob {
    /// A value without a key of its own: DATA entries have their id in the header.
    pub fn unnamed(value: &[u8]) -> Self {
        Self(Block::new(Head::new(Marks::NONE), 0, &[value]))
    }

    /// A value of DATA whose bytes are in a data file.
    pub fn away(place: Place) -> Self {
        Self(Block::new(Head::new(Marks::AWAY), 0, &[&place.encode()]))
    }

    /// The value of a named key. The key has passed the limit of
    /// [`crate::limits::KEY_BYTES_MAX`]; one longer than 255 bytes would be cut.
    pub fn named(key: &[u8], value: &[u8]) -> Self {
        let key_len = u8::try_from(key.len()).unwrap_or(u8::MAX);
        let key = key.get(..usize::from(key_len)).unwrap_or(key);
        let expires = Expiry::NEVER;
        let extra = Extra { expires, key_len }.pack();
        Self(Block::new(Head::new(Marks::NONE), extra, &[key, value]))
    }

    /// Has the processor fetch what a look at the value begins with.
    pub fn prefetch(&self) {
        self.0.prefetch();
    }

    /// This item with `front` and `back` around its value, without its marks; `None` if the
    /// value is away.
    #[must_use]
    pub fn extended(&self, front: &[u8], back: &[u8]) -> Option<Self> {
        let parts = [self.key(), front, self.bytes()?, back];
        let head = self.head().anew();
        Some(Self(Block::new(head, self.0.extra(), &parts)))
    }

    /// This item with another value. As memcached, which edits in place what fits there and
    /// makes a new item of what does not: a longer value does not have the marks of the old one.
    #[must_use]
    pub fn with_value(&self, value: &[u8]) -> Self {
        let head = if value.len() > self.len() {
            self.head().anew()
        } else {
            self.head().reformed(false)
        };
        Self(Block::new(head, self.0.extra(), &[self.key(), value]))
    }

    /// Makes this the item with an id: what a table keeps.
    pub fn become_item(&mut self, id: u32, attributes: Attributes, marks: Marks) {
        let head = self.0.head_mut();
        head.set_id(id);
        head.set_attributes(attributes);
        head.set_kept(marks);
        self.set_expires(attributes.expires);
    }

    /// Takes the header of another form of the same value.
    pub fn become_form_of(&mut self, item: &Self) {
        let is_away = self.is_away();
        *self.0.head_mut() = item.head().reformed(is_away);
        self.set_expires(item.expires());
    }

    fn extra(&self) -> Extra {
        Extra::unpack(self.0.extra())
    }

    /// Flags, expiry and cas unique.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            flags: self.head().flags(),
            expires: self.expires(),
            cas: self.head().cas(),
        }
    }

    /// When the item ends.
    pub fn expires(&self) -> Expiry {
        self.extra().expires
    }

    /// Sets when the item ends. Who shares this blob does not see the change.
    pub fn set_expires(&mut self, expires: Expiry) {
        let key_len = self.extra().key_len;
        self.0.set_extra(Extra { expires, key_len }.pack());
    }

    /// The header.
    pub fn head(&self) -> &Head {
        self.0.head()
    }

    /// The header, to be changed. Who shares this blob does not see the change.
    pub fn head_mut(&mut self) -> &mut Head {
        self.0.head_mut()
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let bytes = self.0.bytes();
        bytes
            .split_at_checked(usize::from(self.extra().key_len))
            .unwrap_or((&[], bytes))
    }

    /// The key; empty for DATA.
    pub fn key(&self) -> &[u8] {
        self.split().0
    }

    /// What there is of the value.
    pub fn content(&self) -> Content<'_> {
        let (_, bytes) = self.split();
        if !self.is_away() {
            return Content::Here(bytes);
        }
        // What `away` has encoded can be decoded; a place of no file is refused when it is read.
        Content::Away(Place::decode(bytes).unwrap_or(Place {
            file: 0,
            offset: 0,
            len: 0,
            crc: 0,
        }))
    }

    /// The value's bytes, unless they are away.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.content() {
            Content::Here(bytes) => Some(bytes),
            Content::Away(_) => None,
        }
    }

    /// The value's length, wherever its bytes are.
    pub fn len(&self) -> usize {
        match self.content() {
            Content::Here(bytes) => bytes.len(),
            Content::Away(place) => place.len as usize,
        }
    }

    /// True for a value of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if memory does not have the bytes.
    pub fn is_away(&self) -> bool {
        self.head().marks().has(Marks::AWAY)
    }

    /// What this takes on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    /// How many blobs share this one's bytes, this one included.
    pub fn shares(&self) -> usize {
        self.0.shares()
    }

    /// What of this other blobs share, in bytes.
    pub fn shared_bytes(&self) -> usize {
        self.0.shared_bytes()
    }
}

/// Blobs are equal if key and value are, whatever the items are that they belong to.
impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.extra().key_len == other.extra().key_len
            && self.is_away() == other.is_away()
            && self.0.bytes() == other.0.bytes()
    }
}

impl Eq for Blob {}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key().escape_ascii();
        match self.content() {
            Content::Here(value) => write!(f, "{key}={}", value.escape_ascii()),
            Content::Away(place) => write!(f, "{key}={place:?}"),
        }
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
/// white space and a `+` allowed before it, and behind it white space or a NUL and then anything.
/// `None` is "non-numeric".
pub fn number_of(value: &[u8]) -> Option<u64> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = value.iter().position(|byte| !is_space(byte))?;
    let rest = value.get(start..)?;
    let rest = rest.strip_prefix(b"+").unwrap_or(rest);
    let is_end = |byte: &u8| is_space(byte) || *byte == 0;
    crate::key::decimal(rest.split(is_end).next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_keeps_key_and_value_apart() {
        let blob = Blob::named(b"key", b"value");
        assert_eq!(
            (blob.key(), blob.bytes()),
            (&b"key"[..], Some(&b"value"[..]))
        );
        let blob = blob.extended(b"<", b">").unwrap();
        assert_eq!(
            (blob.key(), blob.bytes()),
            (&b"key"[..], Some(&b"<value>"[..]))
        );
        assert!(blob.with_value(b"").is_empty());
        assert_eq!(Blob::unnamed(b"v").key(), b"");
    }

    #[test]
    fn a_blob_that_is_away_has_a_length_and_no_bytes() {
        let place = Place {
            file: 9,
            offset: 1 << 40,
            len: 70_000,
            crc: 7,
        };
        let blob = Blob::away(place);
        assert_eq!(blob.content(), Content::Away(place));
        assert_eq!((blob.key(), blob.len()), (&b""[..], 70_000));
        assert_eq!((blob.bytes(), blob.extended(b"x", b"")), (None, None));
        assert!(blob.heap_bytes() <= 64);
    }

    #[test]
    fn a_blob_in_a_table_is_one_pointer() {
        assert_eq!(size_of::<Blob>(), 8);
        assert_eq!(size_of::<Option<Blob>>(), 8);
    }

    #[test]
    fn an_item_of_32_bytes_takes_64_and_its_expiry_8_to_16_more() {
        let mut item = Blob::unnamed(&[7; 32]);
        let attributes = Attributes {
            flags: u32::MAX,
            expires: Expiry::NEVER,
            cas: u64::MAX,
        };
        item.become_item(u32::MAX, attributes, Marks::NONE);
        assert_eq!((item.heap_bytes(), item.attributes()), (64, attributes));
        item.set_expires(Expiry::LATEST);
        assert_eq!((item.heap_bytes(), item.expires()), (80, Expiry::LATEST));
        assert_eq!((item.key(), item.len()), (&b""[..], 32));
        let mut named = Blob::named(&[b'k'; 250], b"value");
        for expires in [Expiry::LATEST, Expiry::at(Time(1)), Expiry::NEVER] {
            named.set_expires(expires);
            assert_eq!((named.expires(), named.key().len()), (expires, 250));
            assert_eq!(named.bytes(), Some(&b"value"[..]));
        }
    }

    #[test]
    fn an_edited_item_keeps_its_header_and_a_copy_its_own() {
        let mut item = Blob::named(b"k", b"v");
        let attributes = Attributes {
            flags: 3,
            expires: Expiry::at(Time(9)),
            cas: 1 << 40,
        };
        item.become_item(0, attributes, Marks::NONE);
        let reply = item.clone();
        item.head_mut().set_cas(5);
        assert_eq!(reply.attributes(), attributes);
        assert_eq!((item.head().cas(), reply.bytes()), (5, item.bytes()));
        for edited in [reply.extended(b"", b"w").unwrap(), reply.with_value(b"")] {
            assert_eq!(edited.attributes(), attributes);
            assert_eq!(edited.key(), b"k");
        }
        let place = Place {
            file: 1,
            offset: 2,
            len: 3,
            crc: 4,
        };
        let mut away = Blob::away(place);
        away.become_form_of(&item);
        assert_eq!(
            (away.head().cas(), away.content()),
            (5, Content::Away(place))
        );
        assert_eq!(away.with_value(b"v").content(), Content::Here(&b"v"[..]));
        assert_ne!(away, Blob::unnamed(&place.encode()));
    }

    #[test]
    fn a_shrinking_number_is_padded_as_memcached_pads_it() {
        assert_eq!(&number_in_place(9, 2)[..], b"9 ");
        assert_eq!(&number_in_place(100, 2)[..], b"100");
        assert_eq!(number_of(b"9 "), Some(9));
        assert_eq!(number_of(b"18446744073709551615"), Some(u64::MAX));
        for text in ["+1", " \t1", "1 2", "1\x0bx", "1\r\n", "1\0x"] {
            assert_eq!(number_of(text.as_bytes()), Some(1), "{text:?}");
        }
        for text in [
            "",
            " ",
            "18446744073709551616",
            "-1",
            "1a",
            "1a ",
            "++1",
            "+ 1",
            "+",
            "\x001",
        ] {
            assert_eq!(number_of(text.as_bytes()), None, "{text:?}");
        }
    }
}
