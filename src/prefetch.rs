//! Memory that is about to be read, asked for ahead: several reads then wait for it together and
//! not one after the other. A hint, which changes nothing and never fails.

#![expect(
    unsafe_code,
    reason = "the processor's hint takes a raw pointer; it reads nothing, so any will do"
)]

/// The bytes that the memory next to a value is fetched in.
const LINE_BYTES: usize = 64;

/// Has the processor fetch the `bytes` from the beginning of a value.
#[inline]
pub fn prefetch<T>(value: *const T, bytes: usize) {
    let into_line = value.addr() % LINE_BYTES;
    let first = value.cast::<i8>().wrapping_sub(into_line);
    for at in (0..into_line + bytes).step_by(LINE_BYTES) {
        line(first.wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line(at: *const i8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every processor of this architecture has the instruction, which neither reads nor
    // writes as the program sees it and ignores an address that is not mapped.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn line(_: *const i8) {}
