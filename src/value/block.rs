//! A header and bytes in one shared allocation, behind a pointer of 8 bytes: what a table or an
//! index keeps by the million. The one module of values that needs unsafe code.
//!
//! ```text
//! head H | shares u16 | len u16 | len bytes, or if len is LONG an Arc of the bytes
//! ```
//!
//! Invariants, which every `unsafe` block here leans on: `front` points at an allocation of
//! [`Block::layout`] whose `Front` and tail are initialized; `len` and the tail never change while
//! it lives; `shares` is the number of blocks that point at it. So the bytes may be read through
//! any of them, and the head may be changed through one that is alone.
//!
//! The count has 16 bits. A clone that would not fit them copies the block: a clone is another
//! block with the same contents, and whether it shares them nobody can tell. Bytes from
//! [`LONG_BYTES`] on are in an `Arc` of their own, so that even then they are not copied.

#![expect(
    unsafe_code,
    reason = "an allocation with a header of this size and a thin pointer is what no crate has"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

/// From how many bytes on they are shared by all copies of a block.
pub const LONG_BYTES: usize = 16 << 10;

/// The `len` of a block whose tail is an `Arc`.
const LONG: u16 = u16::MAX;

/// A shared header and bytes. Clones share both, until the header of one is changed.
pub(super) struct Block<H> {
    front: NonNull<Front<H>>,
    owns: PhantomData<Front<H>>,
}

#[repr(C)]
struct Front<H> {
    head: H,
    shares: AtomicU16,
    len: u16,
}

// SAFETY: a block is a shared reference to its head and bytes, like an `Arc`: the count is
// atomic, and `head_mut` gives the head away only if no other block has it.
unsafe impl<H: Send + Sync> Send for Block<H> {}
// SAFETY: as above.
unsafe impl<H: Send + Sync> Sync for Block<H> {}

impl<H> Block<H> {
    /// The bytes before the tail, which is right after the front and aligned for an `Arc`.
    const TAIL: usize = {
        let front = size_of::<Front<H>>();
        assert!(front.is_multiple_of(align_of::<Arc<Vec<u8>>>()));
        assert!(align_of::<Front<H>>() <= align_of::<Arc<Vec<u8>>>());
        front
    };

    /// A block of the parts' bytes, one part after the other.
    pub(super) fn new(head: H, parts: &[&[u8]]) -> Self {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes >= LONG_BYTES {
            return Self::long(head, Arc::new(parts.concat()));
        }
        // Less than `LONG_BYTES`, which fits.
        let len = u16::try_from(bytes).unwrap_or_default();
        let block = Self::with_front(head, len);
        let mut tail = block.tail::<u8>();
        for part in parts {
            // SAFETY: the parts have `len` bytes together, as many as the tail of the allocation,
            // which is new and so overlaps with no part.
            unsafe {
                ptr::copy_nonoverlapping(part.as_ptr(), tail, part.len());
                tail = tail.add(part.len());
            }
        }
        block
    }

    fn long(head: H, bytes: Arc<Vec<u8>>) -> Self {
        let block = Self::with_front(head, LONG);
        // SAFETY: the tail of a block of this `len` has room for an `Arc` and is aligned for it.
        unsafe { block.tail::<Arc<Vec<u8>>>().write(bytes) };
        block
    }

    /// Allocates; the caller initializes the tail before anything else happens.
    fn with_front(head: H, len: u16) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout has a size other than 0: that of the front at least.
        let memory = unsafe { alloc(layout) }.cast::<Front<H>>();
        let Some(front) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let shares = AtomicU16::new(1);
        // SAFETY: the memory has room for a front, is aligned for it, and is ours alone.
        unsafe { front.write(Front { head, shares, len }) };
        Self {
            front,
            owns: PhantomData,
        }
    }

    fn layout(len: u16) -> Layout {
        let tail = if len == LONG {
            size_of::<Arc<Vec<u8>>>()
        } else {
            usize::from(len)
        };
        // SAFETY: the alignment is that of a type, and the size is far from `isize::MAX`.
        unsafe { Layout::from_size_align_unchecked(Self::TAIL + tail, align_of::<Arc<Vec<u8>>>()) }
    }

    fn front(&self) -> &Front<H> {
        // SAFETY: the front is initialized and lives as long as this block; what changes behind a
        // shared reference is atomic.
        unsafe { self.front.as_ref() }
    }

    /// Where the tail is, which has the alignment of an `Arc`.
    fn tail<T>(&self) -> *mut T {
        // SAFETY: the allocation reaches at least to the end of the front.
        unsafe { self.front.as_ptr().add(1).cast::<T>() }
    }

    /// The `Arc` of a long block.
    fn long_bytes(&self) -> Option<&Arc<Vec<u8>>> {
        // SAFETY: the tail of a block of this `len` is an initialized `Arc`.
        (self.front().len == LONG).then(|| unsafe { &*self.tail::<Arc<Vec<u8>>>() })
    }

    /// The header.
    pub(super) fn head(&self) -> &H {
        &self.front().head
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.long_bytes() {
            Some(bytes) => bytes,
            // SAFETY: the tail of any other block is `len` initialized bytes, which nobody changes
            // as long as a block points at them.
            None => unsafe {
                std::slice::from_raw_parts(self.tail(), usize::from(self.front().len))
            },
        }
    }

    /// What this takes on the heap, in bytes, rounded as allocators round.
    pub(super) fn heap_bytes(&self) -> usize {
        let long = self.long_bytes().map_or(0, |bytes| bytes.len() + 48);
        Self::layout(self.front().len).size().next_multiple_of(16) + long
    }
}

impl<H: Clone> Block<H> {
    /// The same contents in an allocation of its own; but long bytes are shared.
    fn copied(&self) -> Self {
        let head = self.head().clone();
        match self.long_bytes() {
            Some(bytes) => Self::long(head, Arc::clone(bytes)),
            None => Self::new(head, &[self.bytes()]),
        }
    }

    /// The header, to be changed for this block alone.
    pub(super) fn head_mut(&mut self) -> &mut H {
        // Acquire: what others have read through blocks that are gone happened before.
        if self.front().shares.load(Ordering::Acquire) != 1 {
            *self = self.copied();
        }
        // SAFETY: this is the only block of its allocation, and it is borrowed for as long as the
        // header, so that no other can come to be.
        unsafe { &mut self.front.as_mut().head }
    }
}

impl<H: Clone> Clone for Block<H> {
    fn clone(&self) -> Self {
        let shares = &self.front().shares;
        // Relaxed: as with an `Arc`, who has one block may make another without ordering anything.
        let counted = shares.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            count.checked_add(1)
        });
        if counted.is_err() {
            return self.copied();
        }
        Self {
            front: self.front,
            owns: PhantomData,
        }
    }
}

impl<H> Drop for Block<H> {
    fn drop(&mut self) {
        // Release, and Acquire by the last one: all use of the contents happens before their end.
        if self.front().shares.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let len = self.front().len;
        // SAFETY: no other block points at the allocation and this one ends here; its tail is an
        // `Arc` if it is long; it was allocated with the layout of its `len`.
        unsafe {
            if len == LONG {
                ptr::drop_in_place(self.tail::<Arc<Vec<u8>>>());
            }
            ptr::drop_in_place(self.front.as_ptr());
            dealloc(self.front.as_ptr().cast::<u8>(), Self::layout(len));
        }
    }
}

impl<H: fmt::Debug> fmt::Debug for Block<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes().escape_ascii();
        write!(f, "{:?} {bytes}", self.head())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// A header of 12 bytes that counts how many of it there are.
    #[repr(C, align(4))]
    struct Counted {
        number: u32,
        live: [u8; 8],
    }

    static LIVE: AtomicUsize = AtomicUsize::new(0);

    impl Counted {
        fn new(number: u32) -> Self {
            LIVE.fetch_add(1, Ordering::SeqCst);
            let live = [0; 8];
            Self { number, live }
        }
    }

    impl Clone for Counted {
        fn clone(&self) -> Self {
            assert_eq!(self.live, [0; 8]);
            Self::new(self.number)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn blocks_of_every_length_hold_their_parts_and_end() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(LONG_BYTES + 9).collect();
        let step = if cfg!(miri) { 4001 } else { 61 };
        let near = LONG_BYTES - 2..=LONG_BYTES + 2;
        for len in (0..40).chain((40..LONG_BYTES).step_by(step)).chain(near) {
            let (front, back) = bytes[..len].split_at(len / 3);
            let mut block = Block::new(Counted::new(7), &[front, b"", back]);
            assert_eq!((block.bytes(), block.head().number), (&bytes[..len], 7));
            assert!(block.heap_bytes() >= len + 16);
            let clone = block.clone();
            assert_eq!(clone.bytes().as_ptr(), block.bytes().as_ptr());
            block.head_mut().number = 8;
            assert_eq!((clone.head().number, block.head().number), (7, 8));
            assert_eq!(
                (block.bytes(), clone.bytes()),
                (&bytes[..len], &bytes[..len])
            );
            let shared = clone.bytes().as_ptr() == block.bytes().as_ptr();
            assert_eq!(shared, len >= LONG_BYTES, "long bytes are shared by copies");
            drop(clone);
            let place = block.bytes().as_ptr();
            block.head_mut().number = 9;
            assert_eq!((block.bytes().as_ptr(), block.head().number), (place, 9));
        }
        assert_eq!(LIVE.load(Ordering::SeqCst), 0, "as many ended as began");
    }

    #[test]
    fn more_clones_than_the_count_has_room_for_are_copies() {
        for bytes in [vec![1; 20], vec![2; LONG_BYTES]] {
            let block = Block::new(5u32, &[&bytes]);
            let clones: Vec<_> = (0..70_000).map(|_| block.clone()).collect();
            let is_shared = |clone: &&Block<u32>| clone.front == block.front;
            assert_eq!(
                clones.iter().filter(is_shared).count(),
                usize::from(u16::MAX) - 1
            );
            assert!(
                clones
                    .iter()
                    .all(|it| it.bytes() == bytes && *it.head() == 5)
            );
            drop(clones);
            assert_eq!(block.front().shares.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn threads_share_a_block_and_change_their_own() {
        let block = Block::new(0u32, &[b"together"]);
        std::thread::scope(|scope| {
            for own in 1..=4 {
                let mut mine = block.clone();
                scope.spawn(move || {
                    for _ in 0..if cfg!(miri) { 20 } else { 5000 } {
                        let other = mine.clone();
                        *mine.head_mut() = own;
                        assert_eq!((*mine.head(), mine.bytes()), (own, &b"together"[..]));
                        assert_eq!(other.bytes(), b"together");
                    }
                });
            }
        });
        assert_eq!(block.front().shares.load(Ordering::Relaxed), 1);
        assert_eq!(*block.head(), 0);
    }

    #[test]
    fn a_block_is_one_pointer_and_its_front_as_small_as_can_be() {
        assert_eq!(size_of::<Option<Block<u32>>>(), 8);
        assert_eq!(Block::<u32>::TAIL, 8);
        assert_eq!(Block::<[u32; 7]>::TAIL, 32);
    }
}
