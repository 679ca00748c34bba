//! The memory of tables: an [`Allocator`] that has what is large mapped by the system. When a table
//! grows, the array that it leaves is free memory of the machine at once; the general allocator
//! would keep it for something else of its size, which may never come.

#![expect(
    unsafe_code,
    reason = "memory that is mapped has no owner which the compiler knows"
)]

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator, Global};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// From how many bytes on memory is mapped: of less, the unused half of the last page would be too
/// large a part.
const LARGE_BYTES: usize = 64 << 10;

/// What pages are aligned to on every system, at least.
const PAGE_ALIGN: usize = 4096;

/// Maps what is large, and has the rest from the general allocator.
#[derive(Clone, Copy, Default)]
pub struct Pages;

impl Pages {
    /// True if memory of such a layout is mapped: what is freed must be known by its layout alone.
    fn maps(layout: Layout) -> bool {
        layout.size() >= LARGE_BYTES && layout.align() <= PAGE_ALIGN
    }
}

// SAFETY: a mapping stays until it is unmapped, whichever copy of `Pages` does it, and its pages
// are aligned to what `maps` admits; `maps` says the same of a layout whenever it is asked, so
// that memory goes back to where it came from.
unsafe impl Allocator for Pages {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if !Self::maps(layout) {
            return Global.allocate(layout);
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: no address is asked for, so nothing that is mapped already is replaced.
        let memory = unsafe { mmap_anonymous(ptr::null_mut(), layout.size(), protection, flags) };
        let memory = memory.map_err(|_| AllocError)?.cast::<u8>();
        let memory = NonNull::new(memory).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(memory, layout.size()))
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, layout: Layout) {
        if !Self::maps(layout) {
            // SAFETY: `allocate` had it from there, with this layout.
            return unsafe { Global.deallocate(memory, layout) };
        }
        // SAFETY: the caller no longer uses it, and all of it was mapped at once.
        let unmapped = unsafe { munmap(memory.as_ptr().cast(), layout.size()) };
        // The system refuses only if it has no room to note a hole, and then the memory is unused.
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocator_api2::vec::Vec;

    #[test]
    fn memory_of_any_size_and_alignment_is_its_owners_alone() {
        #[repr(align(4096))]
        #[derive(Clone, PartialEq)]
        struct Aligned(u8);

        let mut bytes = Vec::new_in(Pages);
        let mut aligned = Vec::new_in(Pages);
        for at in 0..3 * LARGE_BYTES {
            bytes.push(at.to_le_bytes()[0]);
            if at.is_multiple_of(PAGE_ALIGN) {
                aligned.push(Aligned(at.to_be_bytes()[7]));
                assert!(aligned.as_ptr().is_aligned());
            }
        }
        for (at, &byte) in bytes.iter().enumerate() {
            assert_eq!(byte, at.to_le_bytes()[0]);
        }
        assert!(aligned.iter().enumerate().all(|(at, page)| {
            let first = at * PAGE_ALIGN;
            page.0 == first.to_be_bytes()[7]
        }));
        bytes.truncate(10);
        bytes.shrink_to_fit();
        assert_eq!(&bytes[..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_freed_between_others_goes_back_to_the_system() {
        const ARRAYS: usize = 1000;
        let resident_bytes = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
            pages * rustix::param::page_size()
        };
        let mut arrays: std::vec::Vec<Vec<u8, Pages>> = std::vec::Vec::new();
        for _ in 0..ARRAYS {
            let mut array = Vec::new_in(Pages);
            array.resize(2 * LARGE_BYTES, 1);
            arrays.push(array);
        }
        let full = resident_bytes();
        let mut others = 0..;
        arrays.retain(|_| others.next().is_some_and(|at: usize| at.is_multiple_of(2)));
        assert_eq!(arrays.len(), ARRAYS / 2);
        // Three quarters of what was freed: other tests use memory, too.
        assert!(resident_bytes() + ARRAYS / 2 * 2 * LARGE_BYTES / 4 * 3 < full);
    }
}
