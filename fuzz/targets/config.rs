//! The configuration: any text gives a configuration that can be shown, or an error that says
//! where.

#![no_main]

use libfuzzer_sys::fuzz_target;
use storage_server::config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, "config.ini") {
        Ok(config) => {
            let _ = config.changed_keys(&Config::default());
            let _ = Config::default().after_hup(config);
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("config.ini"), "where? {said}");
        }
    }
});
