//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file under way, beside the place where it will be; removed unless it is finished.
pub struct Output {
    /// What the user called it.
    path: PathBuf,
    /// Where it will be: the same with links followed.
    target: PathBuf,
    /// What is there is no ordinary file (a device, a pipe), so it is written to instead of being replaced.
    special: bool,
    file: NamedTempFile,
}

impl Output {
    /// Starts a file for `path`.
    ///
    /// # Errors
    /// What the system says when the file could not be written there.
    pub fn create(path: &Path) -> io::Result<Output> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let there = fs::metadata(&target).ok();
        if there.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let special = there.as_ref().is_some_and(|there| !there.is_file());
        if there.is_some() && !special {
            // Renaming over it would not ask whether it may be written to.
            OpenOptions::new().append(true).open(&target)?;
        }
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(".slr-replay-");
        let file = if special {
            builder.tempfile()
        } else {
            let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // The library's own error would name a file that nobody asked for.
            fs::metadata(directory)?;
            builder.tempfile_in(directory)
        };
        let file = file.map_err(|error| io::Error::from(error.kind()))?;
        Ok(Output { path: path.to_owned(), target, special, file })
    }

    /// What the user called it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to write to.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// True when `other` is an existing ordinary file that this one would replace.
    pub fn replaces(&self, other: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        !self.special && identity(&self.target).is_some_and(|target| identity(other) == Some(target))
    }

    /// True when both would end up in one place.
    pub fn collides(&self, other: &Output) -> bool {
        !self.special && (self.target == other.target || self.replaces(&other.target))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// What the system says; nothing is left behind then.
    pub fn finish(mut self) -> io::Result<()> {
        if self.special {
            self.file.rewind()?;
            io::copy(&mut self.file, &mut OpenOptions::new().write(true).open(&self.target)?)?;
            return Ok(());
        }
        // Temporary files are private; what the user asked for has the permissions that the umask gives.
        self.file.as_file().set_permissions(Permissions::from_mode(0o666 & !umask()?))?;
        self.file.persist(&self.target).map(drop).map_err(|error| error.error)
    }
}

/// The process's umask, read without changing it.
fn umask() -> io::Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    Ok(umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o022))
}
