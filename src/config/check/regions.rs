//! Which regions clients are in: prefixes, and places of a MaxMind database.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use maxminddb::{Reader, WithinOptions};
use serde::Deserialize;

use crate::config::Config;
use crate::config::error::{Fault, nearest, one_line, quote};
use crate::config::raw::{self, Text};
use crate::config::values::{Once, example, name, prefix, show};
use crate::cost::Expression;
use crate::service::regions::Regions;
use crate::units::RegionId;

/// Each takes a selection of its own in every virtual host that asks for regions.
const REGIONS_MAX: usize = 64;

/// Networks of a database that are in a region, at most: 24 bytes each while the configuration is read.
const NETWORKS_MAX: usize = 8 << 20;

/// Largest database that is read, in bytes.
const DATABASE_MAX: u64 = 512 << 20;

const CONTINENTS: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];

/// What a database calls places. An ISO 3166 code of a subdivision has that of its country before it.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    continent: Option<Continent<'a>>,
    country: Option<Place<'a>>,
    subdivisions: Option<Vec<Place<'a>>>,
}

#[derive(Deserialize)]
struct Continent<'a> {
    code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Place<'a> {
    iso_code: Option<&'a str>,
}

/// A place whose clients are in a region.
struct Claim<'a> {
    text: &'a Text,
    region: RegionId,
    /// Whether the database has any network there.
    found: bool,
}

/// Kinds of places, the largest first: of those around a client the smallest one counts.
const KINDS: [&str; 3] = ["continent", "country", "subdivision"];

/// The places of each kind by their codes.
type Claims<'a> = [HashMap<&'a str, Claim<'a>>; KINDS.len()];

/// The names of the regions, and who is in them.
pub(super) fn regions(raw: &raw::Config) -> Result<(Vec<String>, Arc<Regions>), Fault> {
    let (mut names, mut given, mut claims) = (Vec::new(), Vec::new(), Claims::default());
    let (mut once, mut prefixes) = (Once::new("client region"), Once::new("prefix"));
    let mut places = KINDS.map(Once::new);
    for region in &raw.client_regions {
        let name = name("name", &region.name)?;
        once.add(name.clone(), &region.name)?;
        if names.len() == REGIONS_MAX {
            return Err(Fault::at(&region.name, format!("{REGIONS_MAX} client regions are the most; join some")));
        }
        names.push(name.clone());
        let id = RegionId(names.len() as u8);
        for text in &region.prefixes {
            let net = prefix("prefix", text)?;
            prefixes.add(show(net), text)?;
            given.push((net, id));
        }
        let kinds = [&region.continents, &region.countries, &region.subdivisions];
        for (kind, texts) in kinds.into_iter().enumerate() {
            for text in texts {
                code(kind, text)?;
                places[kind].add(text.value.clone(), text)?;
                claims[kind].insert(&text.value, Claim { text, region: id, found: false });
            }
        }
        if region.prefixes.is_empty() && kinds.iter().all(|texts| texts.is_empty()) {
            let message =
                format!("client region \"{name}\" has no clients; say where they are: {}", example("prefixes"));
            return Err(Fault::at(&region.name, message));
        }
    }
    let first = claims.iter().flat_map(HashMap::values).map(|claim| claim.text);
    let placed = match (&raw.geoip, first.min_by_key(|text| text.place)) {
        (Some(file), Some(_)) => placed(file, &mut claims)?,
        (Some(file), None) => {
            let message = "geoip has no meaning without places; leave it out, or name some in client_regions";
            return Err(Fault::at(file, format!("{message}: {}", example("countries"))));
        }
        (None, Some(text)) => {
            let message = "where places are is for a database to say; add it at the top";
            return Err(Fault::at(text, format!("{message}: {}", example("geoip"))));
        }
        (None, None) => Vec::new(),
    };
    Ok((names, Arc::new(Regions::new(given, placed))))
}

/// Whether a code may be one of this kind of places.
fn code(kind: usize, text: &Text) -> Result<(), Fault> {
    let code = text.value.as_str();
    let upper = |part: &str| part.bytes().all(|byte| byte.is_ascii_uppercase());
    let (right, what) = match kind {
        0 => (CONTINENTS.contains(&code), format!("write one of {}", CONTINENTS.join(", "))),
        1 => (code.len() == 2 && upper(code), "write the two capital letters of ISO 3166-1".into()),
        _ => {
            let right = code.split_once('-').is_some_and(|(country, rest)| {
                let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                country.len() == 2 && upper(country) && (1..=3).contains(&rest.len()) && rest.bytes().all(plain)
            });
            (right, "write a code of ISO 3166-2".into())
        }
    };
    if right {
        return Ok(());
    }
    let (kind, key) = (KINDS[kind], ["continents", "countries", "subdivisions"][kind]);
    Err(Fault::at(text, format!("{kind} {} is none; {what}: {}", quote(code), example(key))))
}

/// The database's networks that are in a region.
fn placed(file: &Text, claims: &mut Claims<'_>) -> Result<Vec<(IpNet, RegionId)>, Fault> {
    let fault = |why: String| {
        let (shown, right) = (quote(&file.value), example("geoip"));
        Fault::at(file, format!("geoip {shown} {why}; give a GeoIP2 or GeoLite2 country or city database: {right}"))
    };
    let path = Path::new(&file.value);
    let unreadable = |error| fault(format!("cannot be read: {error}"));
    if fs::metadata(path).map_err(unreadable)?.len() > DATABASE_MAX {
        return Err(fault("is larger than 512 MiB".into()));
    }
    let broken =
        |error: maxminddb::MaxMindDbError| fault(format!("is no such database: {}", one_line(&error.to_string())));
    let database = Reader::from_source(fs::read(path).map_err(unreadable)?).map_err(broken)?;
    let mut placed = Vec::new();
    // Networks in one place share what is said of it.
    let mut known: HashMap<usize, RegionId> = HashMap::new();
    for network in database.networks(WithinOptions::default()).map_err(broken)? {
        let network = network.map_err(broken)?;
        let Some(offset) = network.offset() else { continue };
        let region = match known.get(&offset) {
            Some(region) => *region,
            None => {
                let record: Option<Record<'_>> = network.decode().map_err(broken)?;
                let region = record.map_or(RegionId::NONE, |record| claimed(claims, &record));
                known.insert(offset, region);
                region
            }
        };
        if region == RegionId::NONE {
            continue;
        }
        let net = network.network().map_err(broken)?;
        let net = IpNet::new(net.ip(), net.prefix()).map_err(|error| fault(format!("is broken: {error}")))?;
        placed.push((net, region));
        if placed.len() > NETWORKS_MAX {
            return Err(fault(format!("has more than {NETWORKS_MAX} networks in client regions")));
        }
    }
    let unknown = claims.iter().zip(KINDS).flat_map(|(of, kind)| of.values().map(move |claim| (claim, kind)));
    match unknown.filter(|(claim, _)| !claim.found).min_by_key(|(claim, _)| claim.text.place) {
        Some((claim, kind)) => {
            let (wrong, file) = (quote(&claim.text.value), quote(&file.value));
            let message = format!("{kind} {wrong} has no networks in {file}; write another, or leave it out");
            Err(Fault::at(claim.text, message))
        }
        None => Ok(placed),
    }
}

/// The region of a record's smallest place that is in one.
fn claimed(claims: &mut Claims<'_>, record: &Record<'_>) -> RegionId {
    let country = record.country.as_ref().and_then(|country| country.iso_code);
    let subdivisions = record.subdivisions.iter().flatten().rev().filter_map(|place| place.iso_code);
    let subdivisions = subdivisions.filter_map(|code| country.map(|country| (code, country)));
    let mut places: Vec<(usize, String)> =
        subdivisions.map(|(code, country)| (2, format!("{country}-{code}"))).collect();
    places.extend(country.map(|code| (1, code.to_owned())));
    places.extend(record.continent.as_ref().and_then(|continent| continent.code).map(|code| (0, code.to_owned())));
    let mut region = RegionId::NONE;
    for (kind, code) in places {
        if let Some(claim) = claims[kind].get_mut(code.as_str()) {
            claim.found = true;
            if region == RegionId::NONE {
                region = claim.region;
            }
        }
    }
    region
}

/// Whether a cost function asks where clients are, and only for regions that there are.
pub(super) fn asks(text: &Text, function: &Expression, config: &Config) -> Result<bool, Fault> {
    if !function.asks_for_region() {
        return Ok(false);
    }
    if config.client_regions.is_empty() {
        let message = "cost_function asks for client_region, but there are none; add them at the top";
        return Err(Fault::at(text, format!("{message}: {}", example("client_regions"))));
    }
    let names = || config.client_regions.iter().map(String::as_str);
    match function.regions().into_iter().find(|region| !region.is_empty() && !names().any(|name| name == *region)) {
        Some(unknown) => {
            let advice = match nearest(unknown, names()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("there are {}, and \"\" for clients in none", names().collect::<Vec<_>>().join(", ")),
            };
            Err(Fault::at(
                text,
                format!("cost_function names the client region {}, which is not there; {advice}", quote(unknown)),
            ))
        }
        None => Ok(true),
    }
}
