//! storage_server
pub mod clock;
pub mod command;
pub mod key;
pub mod limits;
pub mod protocol;
pub mod store;
pub mod types;
pub mod value;
