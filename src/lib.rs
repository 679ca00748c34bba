//! `storage_server`
pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod key;
pub mod limits;
pub mod server;
pub mod types;
pub mod value;
pub mod command {
    //! commands
    pub mod change;
}
