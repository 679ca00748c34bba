//! The memory of tables: an [`Allocator`] that has what is large mapped by the system. When a table
//! grows, the large array that it leaves is free memory of the machine at once; the general
//! allocator would keep it for something else of its size, which may never come.
//!
//! The system has a limit of mappings (`vm.max_map_count`, 65,530 unless changed), of which those
//! that lie side by side are one; beyond it memory cannot be had, as if there were none.

#![expect(
    unsafe_code,
    reason = "memory that is mapped has no owner which the compiler knows"
)]

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator, Global};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// From how many bytes on memory is mapped. With less, the unused end of the last page would be too
/// large a part of some; with more, so would be what tables have left on their way to this size.
const LARGE_BYTES: usize = 16 << 10;

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
        // The system refuses only if the hole would be a mapping too many; then it stays unused.
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocator_api2::vec::Vec;

    /// Writes numbers into a growing array of something of this alignment.
    fn fill<T: From<u16> + Into<u16> + Copy>() {
        let mut array = Vec::new_in(Pages);
        let many = u16::try_from(30 * LARGE_BYTES / size_of::<T>()).unwrap_or(u16::MAX);
        for number in 0..many {
            array.push(T::from(number));
            assert!(array.as_ptr().is_aligned());
        }
        array.truncate(10);
        array.shrink_to_fit();
        assert!((0..10).eq(array.iter().map(|&number| number.into())));
        for number in 10..many {
            array.push(T::from(number));
        }
        assert!((0..many).eq(array.iter().map(|&number| number.into())));
    }

    #[test]
    fn memory_of_any_size_and_alignment_is_its_owners_alone() {
        macro_rules! aligned {
            ($name:ident, $align:literal) => {
                #[repr(align($align))]
                #[derive(Clone, Copy)]
                struct $name(u16);

                impl From<u16> for $name {
                    fn from(number: u16) -> Self {
                        Self(number)
                    }
                }

                impl From<$name> for u16 {
                    fn from($name(number): $name) -> Self {
                        number
                    }
                }
            };
        }
        aligned!(Line, 64);
        aligned!(Page, 4096);
        aligned!(Beyond, 8192);
        fill::<u16>();
        fill::<Line>();
        fill::<Page>();
        fill::<Beyond>();
    }

    #[test]
    fn what_is_freed_between_others_goes_back_to_the_system() {
        // Small enough for the general allocator to keep them, were they its.
        const ARRAYS: usize = 4000;
        let resident_bytes = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
            pages * rustix::param::page_size()
        };
        let mut arrays: std::vec::Vec<Vec<u8, Pages>> = std::vec::Vec::new();
        for _ in 0..ARRAYS {
            let mut array = Vec::new_in(Pages);
            array.resize(LARGE_BYTES, 1);
            arrays.push(array);
        }
        let full = resident_bytes();
        let mut others = 0..;
        arrays.retain(|_| others.next().is_some_and(|at: usize| at.is_multiple_of(2)));
        assert_eq!(arrays.len(), ARRAYS / 2);
        // Half of what was freed: other tests use memory, too.
        assert!(resident_bytes() + ARRAYS / 2 * LARGE_BYTES / 2 < full);
    }
}
