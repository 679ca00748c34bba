//! The records of a batch: any bytes give records or an error, and what was read is read back
//! as it is written. The first byte chooses the version of the format.

#![no_main]

use storage_server::journal::{fuzz, record::VERSION};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((version, payload)) = input.split_first() {
        fuzz::records(1 + u32::from(*version) % VERSION, payload);
    }
});
