//! What must hold of the configuration for any text at all.

use slr::config::Config;

/// Checks that the text is taken, and can be shown, or refused in one line.
pub fn run(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Config::parse(text, "fuzz.yaml") {
        Ok(config) => assert!(!config.summary().to_string().is_empty()),
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with("fuzz.yaml:") && line.lines().count() == 1, "{line:?}");
        }
    }
}
