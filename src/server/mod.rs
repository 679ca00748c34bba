//! Everything that touches the process and its surroundings: sockets, signals, the service
//! manager, the terminal, and files other than data. The only place that awaits.

pub mod detach;
pub mod files;
pub mod logging;
pub mod systemd;
