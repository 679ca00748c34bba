//! storage_server
pub mod clock;
pub mod codec;
pub mod journal;
pub mod key;
pub mod limits;
pub mod types;
pub mod value;
pub mod command {
    //! commands
    pub mod change;
}
