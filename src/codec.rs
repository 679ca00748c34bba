//! Little-endian numbers and varints: a checked cursor for reading, `put_*` for writing.
//!
//! Invariant: reading is total. Any bytes give a value or a [`CodecError`], never a panic, and
//! nothing is allocated by a length that was not checked against the bytes that are there.
//! Anyone may use it; today the journal's format does.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the value does.
    #[error("the bytes end early")]
    Short,
    /// A varint is longer than 64 bits.
    #[error("a varint is longer than 64 bits")]
    Overlong,
    /// A number is larger than its field allows.
    #[error("a number is out of its range")]
    Range,
}

/// A cursor over bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True at the end.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A LEB128 number.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        match *self.rest {
            // Most take one.
            [byte @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, CodecError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(CodecError::Overlong);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(CodecError::Overlong)
    }

    /// A LEB128 number that fits `T`.
    #[inline]
    pub fn varint_as<T: TryFrom<u64>>(&mut self) -> Result<T, CodecError> {
        T::try_from(self.varint()?).map_err(|_| CodecError::Range)
    }

    /// A LEB128 number of things that take at least one byte each: never more than are left.
    pub fn count(&mut self) -> Result<usize, CodecError> {
        let count: usize = self.varint_as()?;
        if count > self.remaining() {
            return Err(CodecError::Short);
        }
        Ok(count)
    }

    /// A signed LEB128 number, zigzag.
    pub fn zigzag(&mut self) -> Result<i64, CodecError> {
        let number = self.varint()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }
}

/// Appends one byte.
pub fn put_u8(out: &mut Vec<u8>, number: u8) {
    out.push(number);
}

/// Appends two bytes.
pub fn put_u16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends four bytes.
pub fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends eight bytes.
pub fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends a LEB128 number.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low_byte(number) | 0x80);
        number >>= 7;
    }
    out.push(low_byte(number));
}

fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

/// Appends a signed LEB128 number, zigzag.
#[inline]
pub fn put_zigzag(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fixed_numbers_are_little_endian() {
        let mut out = Vec::new();
        put_u8(&mut out, 1);
        put_u16(&mut out, 0x0203);
        put_u32(&mut out, 0x0405_0607);
        put_u64(&mut out, 0x0809_0a0b_0c0d_0e0f);
        assert_eq!(out, [1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8]);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(reader.u8(), Err(CodecError::Short));
    }

    #[test]
    fn bad_varints_are_errors() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        assert_eq!(read(&[]), Err(CodecError::Short));
        assert_eq!(read(&[0x80]), Err(CodecError::Short));
        assert_eq!(read(&[0xff; 9]), Err(CodecError::Short));
        assert_eq!(read(&[0xff; 10]), Err(CodecError::Overlong));
        assert_eq!(read(&[0xff; 11]), Err(CodecError::Overlong));
        assert_eq!(
            Reader::new(&[0x80, 0x80, 4]).varint_as::<u16>(),
            Err(CodecError::Range)
        );
        assert_eq!(Reader::new(&[2, 0]).count(), Err(CodecError::Short));
        assert_eq!(Reader::new(&[1, 0]).count(), Ok(1));
    }

    proptest! {
        #[test]
        fn varints_come_back(number: u64, signed: i64) {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            put_zigzag(&mut out, signed);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(number));
            prop_assert_eq!(reader.zigzag(), Ok(signed));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn the_ends_of_the_ranges_come_back() {
        for number in [0, 127, 128, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(Reader::new(&out).varint(), Ok(number));
        }
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_zigzag(&mut out, number);
            assert_eq!(Reader::new(&out).zigzag(), Ok(number));
        }
    }
}
