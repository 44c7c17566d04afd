//! Where the table of children is, when the file does not have it.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::health::roots;
use super::or;
use crate::config::Site;
use crate::config::error::{Fault, quote};
use crate::config::raw::{self, ListOr, Text};
use crate::config::values::{duration, example};

/// From one question to the next.
const INTERVAL: Duration = Duration::from_secs(30);

/// Those that are allowed.
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(24 * 3600)];

/// The authorities that the machine trusts, where Debian and others have them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where copies of tables are kept, each under its router's name.
const DIRECTORY: &str = "/var/lib/slr";

/// The site that the configuration names, if it does.
pub(in crate::config) fn site(raw: &raw::Config) -> Result<Option<Site>, Fault> {
    let ListOr::Map(site) = &raw.children.value else { return Ok(None) };
    let url = &site.url;
    let wrong = |why: &str| {
        let shown = quote(&url.value);
        Fault::at(url, format!("url {shown} {why}; write one like {}", example("url")))
    };
    let uri: Uri = url.value.parse().map_err(|_| wrong("is none"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("does not start with https://"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("names no site"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("has a user name, which is not sent"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let trusted = || url.with(AUTHORITIES.to_owned());
    let roots = match &site.authority {
        Some(text) => roots("authority", text)?,
        None => roots("authority", &trusted())?,
    };
    let copy = || Ok(PathBuf::from(format!("{DIRECTORY}/{}.children.yaml", raw.router.name.value)));
    Ok(Some(Site {
        url: url.value.clone(),
        host,
        port: authority.port_u16().unwrap_or(443),
        target,
        roots,
        interval: or(&site.interval, INTERVAL, interval)?,
        copy: site.copy.as_ref().map_or_else(copy, path)?,
    }))
}

fn interval(text: &Text) -> Result<Duration, Fault> {
    let time = duration("interval", text)?;
    if (INTERVALS[0]..=INTERVALS[1]).contains(&time) {
        return Ok(time);
    }
    let wrong = quote(&text.value);
    Err(Fault::at(text, format!("interval {wrong} is out of range; write a time from 1s to 24h: interval: 30s")))
}

fn path(text: &Text) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(&text.value);
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(path);
    }
    let wrong = quote(&text.value);
    Err(Fault::at(text, format!("copy {wrong} is no whole path of a file; write one: {}", example("copy"))))
}
