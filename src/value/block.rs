//! A header and bytes in one shared allocation, behind a pointer of 8 bytes: what a table or an
//! index keeps by the million. The one module of values that needs unsafe code.
//!
//! ```text
//! head H | shares u16 | shape u16 | extra u64, if it has one | bytes, or an Arc of the bytes
//! ```
//!
//! The shape says whether there is an extra number, whether the bytes are in an `Arc`, and how
//! many there are if they are not.
//!
//! Invariants, which every `unsafe` block here leans on: `front` points at an allocation of
//! [`Shape::layout`] whose front, extra number and tail are initialized; the shape and the tail
//! never change while it lives; `shares` is the number of blocks that point at it. So the bytes
//! may be read through any of them, and the head and the extra number may be changed through one
//! that is alone.
//!
//! The count has 16 bits. A clone that would not fit them copies the block: a clone is another
//! block with the same contents, and only the figures of memory tell whether it shares them. Bytes
//! from [`LONG_BYTES`] on are in an `Arc` of their own, so that even then they are not copied.

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

use crate::prefetch::prefetch;

/// From how many bytes on they are shared by all copies of a block.
pub const LONG_BYTES: usize = 16 << 10;

/// How much of a block is worth fetching ahead: what follows in order the processor foresees.
const PREFETCHED_BYTES: usize = 128;

/// About what long bytes take beside themselves.
const LONG_FRONT: usize = 64;

/// What an allocation of `bytes` takes: the sizes that allocators have, and 8 that the one of the
/// C library adds.
pub(super) fn on_heap(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else {
        (bytes + 8).next_multiple_of(16)
    }
}

/// How the allocation of a block is laid out. The lower bits are the number of its bytes, which
/// are less than [`LONG_BYTES`].
#[derive(Clone, Copy)]
struct Shape(u16);

impl Shape {
    /// The bytes are in an `Arc`.
    const LONG: u16 = 1 << 15;
    /// There is an extra number.
    const EXTRA: u16 = 1 << 14;

    fn new(len: usize, extra: u64) -> Self {
        const { assert!(LONG_BYTES <= Self::EXTRA as usize) };
        let len = match u16::try_from(len) {
            Ok(short) if len < LONG_BYTES => short,
            Ok(_) | Err(_) => Self::LONG,
        };
        Self(len | if extra == 0 { 0 } else { Self::EXTRA })
    }

    fn is_long(self) -> bool {
        self.0 & Self::LONG != 0
    }

    fn has_extra(self) -> bool {
        self.0 & Self::EXTRA != 0
    }

    /// How many bytes there are, unless they are in an `Arc`.
    fn len(self) -> usize {
        usize::from(self.0 & !(Self::LONG | Self::EXTRA))
    }

    /// How many bytes of a block with a front `F` are before its tail.
    fn tail_at<F>(self) -> usize {
        const {
            // The extra number and an `Arc` are aligned wherever the front ends.
            assert!(size_of::<F>().is_multiple_of(ALIGN) && align_of::<F>() <= ALIGN);
            assert!(align_of::<u64>() <= ALIGN && size_of::<u64>().is_multiple_of(ALIGN));
        };
        let extra = if self.has_extra() {
            size_of::<u64>()
        } else {
            0
        };
        size_of::<F>() + extra
    }

    fn layout<F>(self) -> Layout {
        let tail = if self.is_long() {
            size_of::<Arc<Vec<u8>>>()
        } else {
            self.len()
        };
        // SAFETY: the alignment is that of a type, and the size is far from `isize::MAX`.
        unsafe { Layout::from_size_align_unchecked(self.tail_at::<F>() + tail, ALIGN) }
    }
}

/// The alignment of a block.
const ALIGN: usize = align_of::<Arc<Vec<u8>>>();

/// A shared header and bytes. Clones share both, until the header of one is changed.
pub(super) struct Block<H> {
    front: NonNull<Front<H>>,
    owns: PhantomData<Front<H>>,
}

#[repr(C)]
struct Front<H> {
    head: H,
    shares: AtomicU16,
    shape: Shape,
}

// SAFETY: a block is a shared reference to its head and bytes, like an `Arc`: the count is
// atomic, and `head_mut` gives the head away only if no other block has it.
unsafe impl<H: Send + Sync> Send for Block<H> {}
// SAFETY: as above.
unsafe impl<H: Send + Sync> Sync for Block<H> {}

impl<H> Block<H> {
    /// A block of the parts' bytes, one part after the other, and of an extra number that takes
    /// no room if it is 0.
    pub(super) fn new(head: H, extra: u64, parts: &[&[u8]]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let shape = Shape::new(len, extra);
        if shape.is_long() {
            return Self::long(head, extra, Arc::new(parts.concat()));
        }
        let block = Self::with_front(head, extra, shape);
        let mut tail = block.tail::<u8>();
        for part in parts {
            // SAFETY: the parts have as many bytes together as the tail of the allocation, which
            // is new and so overlaps with no part.
            unsafe {
                ptr::copy_nonoverlapping(part.as_ptr(), tail, part.len());
                tail = tail.add(part.len());
            }
        }
        block
    }

    fn long(head: H, extra: u64, bytes: Arc<Vec<u8>>) -> Self {
        let block = Self::with_front(head, extra, Shape::new(LONG_BYTES, extra));
        // SAFETY: the tail of a long block has room for an `Arc` and is aligned for it.
        unsafe { block.tail::<Arc<Vec<u8>>>().write(bytes) };
        block
    }

    /// Allocates; the caller initializes the tail before anything else happens.
    fn with_front(head: H, extra: u64, shape: Shape) -> Self {
        let layout = shape.layout::<Front<H>>();
        // SAFETY: the layout has a size other than 0: that of the front at least.
        let memory = unsafe { alloc(layout) }.cast::<Front<H>>();
        let Some(front) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let shares = AtomicU16::new(1);
        // SAFETY: the memory has room for a front, is aligned for it, and is ours alone; and after
        // the front there is room for the extra number, if the shape says so, and alignment.
        unsafe {
            front.write(Front {
                head,
                shares,
                shape,
            });
            if shape.has_extra() {
                front.add(1).cast::<u64>().write(extra);
            }
        }
        Self {
            front,
            owns: PhantomData,
        }
    }

    fn front(&self) -> &Front<H> {
        // SAFETY: the front is initialized and lives as long as this block; what changes behind a
        // shared reference is atomic.
        unsafe { self.front.as_ref() }
    }

    fn shape(&self) -> Shape {
        self.front().shape
    }

    /// Where the tail is, which has the alignment of an `Arc`.
    fn tail<T>(&self) -> *mut T {
        let at = self.shape().tail_at::<Front<H>>();
        // SAFETY: the allocation reaches at least to where its tail begins.
        unsafe { self.front.as_ptr().byte_add(at).cast::<T>() }
    }

    /// The `Arc` of a long block.
    fn long_bytes(&self) -> Option<&Arc<Vec<u8>>> {
        // SAFETY: the tail of a long block is an initialized `Arc`.
        self.shape()
            .is_long()
            .then(|| unsafe { &*self.tail::<Arc<Vec<u8>>>() })
    }

    /// The extra number; 0 if there is none.
    pub(super) fn extra(&self) -> u64 {
        if !self.shape().has_extra() {
            return 0;
        }
        // SAFETY: a block of this shape has an initialized number right after its front.
        unsafe { self.front.add(1).cast::<u64>().read() }
    }

    /// The header.
    pub(super) fn head(&self) -> &H {
        &self.front().head
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.long_bytes() {
            Some(bytes) => bytes,
            // SAFETY: the tail of any other block is as many initialized bytes as its shape says,
            // which nobody changes as long as a block points at them.
            None => unsafe { std::slice::from_raw_parts(self.tail(), self.shape().len()) },
        }
    }

    /// Has the processor fetch the header and the first bytes.
    pub(super) fn prefetch(&self) {
        prefetch(self.front.as_ptr(), PREFETCHED_BYTES);
    }

    /// What this takes on the heap, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let long = self
            .long_bytes()
            .map_or(0, |bytes| bytes.len() + LONG_FRONT);
        on_heap(self.shape().layout::<Front<H>>().size()) + long
    }

    /// What of this other blocks share, in bytes.
    pub(super) fn shared_bytes(&self) -> usize {
        match self.long_bytes() {
            _ if !self.is_alone() => self.heap_bytes(),
            Some(bytes) if Arc::strong_count(bytes) > 1 => bytes.len() + LONG_FRONT,
            Some(_) | None => 0,
        }
    }

    /// How many blocks point at the allocation.
    pub(super) fn shares(&self) -> usize {
        usize::from(self.front().shares.load(Ordering::Relaxed))
    }

    /// True if no other block points at the allocation.
    fn is_alone(&self) -> bool {
        // Acquire: what others have read through blocks that are gone happened before.
        self.front().shares.load(Ordering::Acquire) == 1
    }
}

impl<H: Clone> Block<H> {
    /// The same contents in an allocation of its own; but long bytes are shared.
    fn copied(&self, extra: u64) -> Self {
        let head = self.head().clone();
        match self.long_bytes() {
            Some(bytes) => Self::long(head, extra, Arc::clone(bytes)),
            None => Self::new(head, extra, &[self.bytes()]),
        }
    }

    /// The header, to be changed for this block alone.
    pub(super) fn head_mut(&mut self) -> &mut H {
        if !self.is_alone() {
            *self = self.copied(self.extra());
        }
        // SAFETY: this is the only block of its allocation, and it is borrowed for as long as the
        // header, so that no other can come to be.
        unsafe { &mut self.front.as_mut().head }
    }

    /// Changes the extra number for this block alone.
    pub(super) fn set_extra(&mut self, extra: u64) {
        if self.extra() == extra {
            return;
        }
        if !self.is_alone() || !self.shape().has_extra() {
            *self = self.copied(extra);
            return;
        }
        // SAFETY: a block of this shape has a number right after its front, and this is the only
        // block of its allocation.
        unsafe { self.front.add(1).cast::<u64>().write(extra) };
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
            return self.copied(self.extra());
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
        let shape = self.shape();
        // SAFETY: no other block points at the allocation and this one ends here; its tail is an
        // `Arc` if it is long; it was allocated with the layout of its shape.
        unsafe {
            if shape.is_long() {
                ptr::drop_in_place(self.tail::<Arc<Vec<u8>>>());
            }
            ptr::drop_in_place(self.front.as_ptr());
            dealloc(self.front.as_ptr().cast::<u8>(), shape.layout::<Front<H>>());
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
            let mut block = Block::new(Counted::new(7), len as u64 % 2, &[front, b"", back]);
            assert_eq!((block.bytes(), block.head().number), (&bytes[..len], 7));
            assert!(block.heap_bytes() >= len + 24);
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
            assert_eq!(block.extra(), len as u64 % 2);
            block.set_extra(u64::MAX);
            let place = block.bytes().as_ptr();
            let other = block.clone();
            block.set_extra(1 << 40);
            assert_eq!((other.extra(), block.extra()), (u64::MAX, 1 << 40));
            assert_eq!(
                (other.bytes(), block.bytes()),
                (&bytes[..len], &bytes[..len])
            );
            drop(block);
            block = other;
            block.set_extra(0);
            assert_eq!((block.extra(), block.bytes()), (0, &bytes[..len]));
            block.head_mut().number = 9;
            assert_eq!((block.bytes().as_ptr(), block.head().number), (place, 9));
        }
        assert_eq!(LIVE.load(Ordering::SeqCst), 0, "as many ended as began");
    }

    #[test]
    fn more_clones_than_the_count_has_room_for_are_copies() {
        for bytes in [vec![1; 20], vec![2; LONG_BYTES]] {
            let block = Block::new(5u32, 6, &[&bytes]);
            let clones: Vec<_> = (0..70_000).map(|_| block.clone()).collect();
            let is_shared = |clone: &&Block<u32>| clone.front == block.front;
            assert_eq!(
                clones.iter().filter(is_shared).count(),
                usize::from(u16::MAX) - 1
            );
            assert!(
                clones
                    .iter()
                    .all(|it| it.bytes() == bytes && (*it.head(), it.extra()) == (5, 6))
            );
            drop(clones);
            assert_eq!(block.front().shares.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn threads_share_a_block_and_change_their_own() {
        let block = Block::new(0u32, 0, &[b"together"]);
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
        assert_eq!(size_of::<Front<u32>>(), 8);
        assert_eq!(Block::new([0u32; 5], 0, &[&[7; 32]]).heap_bytes(), 64);
    }
}
