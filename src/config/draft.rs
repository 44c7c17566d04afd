//! A configuration that has been read, and is whole once there is a table of children to go with it.
//!
//! ```text
//!   file ──read──► Draft ──site──► somebody asks it, or reads the copy
//!                    └──────finish(table)──────► Config
//! ```

use std::path::Path;

use super::error::{ConfigError, Fault, one_line};
use super::{Config, Site, check, raw, read_file};

/// Largest table of children that is read, in bytes.
pub const TABLE_MAX: usize = 64 << 20;

/// What a file says, before that is checked.
pub struct Draft {
    raw: raw::Config,
    file: String,
    site: Option<Site>,
}

impl Draft {
    /// Reads a file.
    ///
    /// # Errors
    /// As for [`Config::load`], as far as the keys and the site are concerned.
    pub fn load(path: &Path) -> Result<Draft, ConfigError> {
        let name = path.display().to_string();
        let text = read_file(path, "dpdk-config/replay.yaml").map_err(|fault| fault.in_file(&name))?;
        Draft::parse(&text, &name)
    }

    /// The same of a YAML text; `file` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, file: &str) -> Result<Draft, ConfigError> {
        let raw = raw::read(text, &raw::ROUTER).map_err(|fault| fault.in_file(file))?;
        let site = check::site::site(&raw).map_err(|fault| fault.in_file(file))?;
        Ok(Draft { raw, file: file.to_owned(), site })
    }

    /// The site that has the table of children; `None`: the file has it.
    pub fn site(&self) -> Option<&Site> {
        self.site.as_ref()
    }

    /// Checks everything, with the table of children as the site has it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in the file or in the table.
    pub fn finish(&self, table: Option<&str>) -> Result<Config, ConfigError> {
        let Some(site) = &self.site else {
            return check::check(&self.raw, None).map_err(|fault| fault.in_file(&self.file));
        };
        let Some(text) = table else {
            let message = "there is no table of children; let a router that can reach the site keep a copy first";
            return Err(Fault::whole(message).in_file(&site.url));
        };
        let table: raw::Table = raw::read(text, &raw::TABLE).map_err(|fault| fault.in_file(&site.url))?;
        check::check(&self.raw, Some(&table)).map_err(|fault| {
            let file = if fault.of_site { &site.url } else { &self.file };
            fault.in_file(file)
        })
    }

    /// Checks everything, with the copy of the table that is kept.
    ///
    /// # Errors
    /// There is none, it cannot be read, or what [`Draft::finish`] refuses.
    pub fn finish_with_copy(&self) -> Result<Config, ConfigError> {
        self.finish(self.copy()?.as_deref())
    }

    /// The copy that is kept; `None` where the file has the children.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn copy(&self) -> Result<Option<String>, ConfigError> {
        let Some(site) = &self.site else { return Ok(None) };
        let (url, copy) = (&site.url, site.copy.display().to_string());
        let missing = |error: std::io::Error| ConfigError {
            file: one_line(&copy),
            place: None,
            message: format!("there is no copy of the children at {url}: {error}; start once while the site answers"),
        };
        std::fs::read_to_string(&site.copy).map(Some).map_err(missing)
    }
}
