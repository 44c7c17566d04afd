//! How the table of children comes from a site: at the start, when the configuration is read again, and as it changes.
//!
//! ```text
//!   file ──► Draft ─┬─ site ──► its table ──┐
//!                   └─ else the last one ───┴──► Config        a good table is kept on disk for the next start
//! ```

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{AbortHandle, spawn_blocking};

use super::Loading;
use crate::config::draft::Draft;
use crate::config::{Config, ConfigError, Site};
use crate::control::site::{Counters, Poll, Watch};
use crate::transport::site::{Answer, Table, fetch};

/// By how many percent of the interval questions come earlier, so that not all routers ask at once.
const SPREAD: u64 = 20;

/// A configuration, and what it was made of.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    parts: Parts,
    /// Why the table is not what the site has now.
    trouble: Option<String>,
}

impl Loaded {
    /// Why its children are the last known ones, where they are: the site has no good table.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// What a configuration was made of.
#[derive(Clone)]
struct Parts {
    draft: Arc<Draft>,
    /// The table as the site had it.
    table: Option<Table>,
}

/// Reads a configuration. Where a site has its children that is asked; while it has no good answer the last table counts
/// that came from there: that in `before`, or else the copy on disk.
///
/// # Errors
/// The file is not right, or there is neither a good table nor a copy.
fn load(file: &Path, before: Option<&Parts>) -> Result<Loaded, ConfigError> {
    let draft = Arc::new(Draft::load(file)?);
    let Some(site) = draft.site() else {
        let config = draft.finish(None)?;
        return Ok(Loaded { config, parts: Parts { draft, table: None }, trouble: None });
    };
    let of_site = |message| ConfigError { file: site.url.clone(), place: None, message };
    let asked = ask(site).map_err(|error| of_site(error.to_string())).and_then(|answer| answer.map_err(of_site));
    let answered = asked.and_then(|table| Ok((draft.finish(Some(&table.text))?, table)));
    let why = match answered {
        Ok((config, table)) => {
            return Ok(Loaded { config, parts: Parts { draft, table: Some(table) }, trouble: None });
        }
        Err(why) => why,
    };
    let same = before.filter(|before| before.draft.site().is_some_and(|other| other.url == site.url));
    let text = match same.and_then(|before| before.table.clone()) {
        Some(table) => Some(table.text),
        None => {
            draft.copy().map_err(|none| ConfigError { message: format!("{}; {none}", why.message), ..why.clone() })?
        }
    };
    let config = draft.finish(text.as_deref())?;
    // Its tag is not known: the next answer has it.
    let table = text.map(|text| Table { text, etag: None });
    let trouble = Some(format!("children are the last known ones: {why}"));
    Ok(Loaded { config, parts: Parts { draft, table }, trouble })
}

/// Reads the configuration that a router is to start with.
///
/// # Errors
/// The file is not right, or its children are at a site that has no good table and of which there is no copy.
pub fn read(file: &Path) -> Result<Loaded, ConfigError> {
    load(file, None)
}

fn ask(site: &Site) -> io::Result<Result<Table, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(fetch(site, None)).and_then(|answer| match answer {
        Answer::Table(table) => Ok(table),
        Answer::Unchanged => Err("it answers that a table is unchanged that nobody has named".into()),
    }))
}

/// The configuration's parts as they are in force, and the site that is asked for news.
pub(super) struct Children {
    parts: Parts,
    watch: Watch,
    asking: Option<AbortHandle>,
    sender: Sender<Result<Answer, String>>,
    answers: Receiver<Result<Answer, String>>,
}

impl Children {
    pub(super) fn new(parts: &Loaded) -> Children {
        let (sender, answers) = mpsc::channel(1);
        Children { parts: parts.parts.clone(), watch: Watch::default(), asking: None, sender, answers }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.watch.counters().clone()
    }

    /// Another configuration is in force, or the first: keeps a copy of its table, and asks its site from now on.
    pub(super) fn adopt(&mut self, parts: &Adopted) {
        let Adopted { parts, trouble } = parts;
        let Some(site) = parts.draft.site() else {
            self.parts = parts.clone();
            return self.stop();
        };
        let (url, children) = (site.url.clone(), format!("children of {}", site.url));
        match trouble {
            Some(why) => self.tell(Poll::Failed, why),
            None => {
                self.tell(Poll::Taken, &format!("{children} are in force"));
                let (copy, text) = (site.copy.clone(), parts.table.as_ref().map(|table| table.text.clone()));
                spawn_blocking(move || {
                    if let Err(error) = keep(&copy, text.as_deref().unwrap_or_default()) {
                        eprintln!("slr: no copy of {url} at {}: {error}", copy.display());
                    }
                });
            }
        }
        self.parts = parts.clone();
        self.ask();
    }

    /// Asks the site from now on for any other table than ours.
    fn ask(&mut self) {
        self.stop();
        let Parts { draft, table } = &self.parts;
        if let Some(site) = draft.site().cloned() {
            let etag = table.as_ref().and_then(|table| table.etag.clone());
            self.asking = Some(tokio::spawn(ask_on(site, etag, self.sender.clone())).abort_handle());
        }
    }

    fn stop(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
        // What it had to say is of another site.
        while self.answers.try_recv().is_ok() {}
    }

    /// What the site says next.
    pub(super) async fn answer(&mut self) -> Option<Result<Answer, String>> {
        self.answers.recv().await
    }

    /// Takes in what the site says; another table is on its way to be a configuration.
    pub(super) fn take(&mut self, answer: Result<Answer, String>) -> Option<Loading> {
        let url = self.parts.draft.site()?.url.clone();
        let same = format!("children of {url}: the site has the table that is in force again");
        match answer {
            Ok(Answer::Table(table)) if Some(&table.text) == self.parts.table.as_ref().map(|ours| &ours.text) => {
                self.tell(Poll::Unchanged, &same);
                // Its tag is another, or we know none.
                self.parts.table = Some(table);
                self.ask();
            }
            Ok(Answer::Table(table)) => {
                let parts = Parts { table: Some(table), ..self.parts.clone() };
                return Some(spawn_blocking(move || {
                    let text = parts.table.as_ref().map(|table| table.text.as_str());
                    Ok(Loaded { config: parts.draft.finish(text)?, parts, trouble: None })
                }));
            }
            Ok(Answer::Unchanged) => self.tell(Poll::Unchanged, &same),
            Err(why) => self.tell(Poll::Failed, &format!("children of {url} stay as they are: {why}")),
        }
        None
    }

    /// The table that the site has now cannot be in force.
    pub(super) fn refuse(&mut self, why: &str) {
        if let Some(site) = self.parts.draft.site() {
            let line = format!("children of {} stay as they are: {why}", site.url);
            self.tell(Poll::Refused, &line);
        }
    }

    fn tell(&mut self, poll: Poll, what: &str) {
        if let Some(line) = self.watch.ended(SystemTime::now().into(), poll, what) {
            eprintln!("slr: {line}");
        }
    }
}

/// What a configuration that is about to be in force was made of.
pub(super) struct Adopted {
    parts: Parts,
    trouble: Option<String>,
}

impl Loaded {
    /// The configuration, and the rest.
    pub(super) fn split(self) -> (Config, Adopted) {
        let Loaded { config, parts, trouble } = self;
        (config, Adopted { parts, trouble })
    }
}

/// Reads the configuration again, beside the one in force.
pub(super) fn load_again(file: std::path::PathBuf, children: &Children) -> Loading {
    let before = children.parts.clone();
    spawn_blocking(move || load(&file, Some(&before)))
}

/// Asks a site again and again.
async fn ask_on(site: Site, etag: Option<String>, sender: Sender<Result<Answer, String>>) {
    for question in 0_u64.. {
        let part = 100 - RandomState::new().hash_one(question) % SPREAD;
        tokio::time::sleep(site.interval.mul_f64(part as f64 / 100.0)).await;
        let answer = fetch(&site, etag.as_deref()).await;
        if sender.send(answer).await.is_err() {
            return;
        }
    }
}

/// Puts a table in the place of its last copy, whole or not at all.
fn keep(copy: &Path, text: &str) -> io::Result<()> {
    let directory = copy.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(copy).map_err(|error| error.error)?;
    Ok(())
}
