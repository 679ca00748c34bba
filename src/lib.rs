//! `storage_server`
pub mod clock;
pub mod config;
pub mod key;
pub mod limits;
pub mod types;
pub mod value;
pub mod command {
    //! commands
    pub mod change;
}
