//! The host agent's configuration, checked: the same rules and the same errors as the router's, with keys of its own.

mod check;
mod checked;
mod expression;
mod raw;
mod summary;

use std::path::Path;

use super::error::ConfigError;
use super::read_file;
pub use checked::*;
pub use expression::{Expression, Inputs};
pub use summary::Summary;

/// A configuration to start from, as errors name it.
const SAMPLE: &str = "dpdk-config/host.yaml";

impl HostConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 or larger than 256 MiB, or what [`HostConfig::parse`] refuses.
    pub fn load(path: &Path) -> Result<HostConfig, ConfigError> {
        let name = path.display().to_string();
        let text = read_file(path, SAMPLE).map_err(|fault| fault.in_file(&name))?;
        HostConfig::parse(&text, &name)
    }

    /// Checks a configuration given as YAML text; `file_name` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, file_name: &str) -> Result<HostConfig, ConfigError> {
        raw::read(text).and_then(|raw| check::check(&raw)).map_err(|fault| fault.in_file(file_name))
    }

    /// What was understood, for people.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}
