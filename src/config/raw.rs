//! Which keys exist, at what depth, and whether each holds a value, a list or a map.
//!
//! Every single value is kept as its text with its place, so that `check` alone decides what it means.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use super::error::{Fault, Place, nearest, one_line, quote};
use super::values::example;

/// A single value as it was written.
pub(super) type Text = Spanned<String>;

/// Declares structs whose keys are all there is.
macro_rules! raw {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name { $($(#[$attribute])* pub $field: $type,)* }
    )*};
}
pub(super) use raw;

raw! {
    Config {
        router: Router,
        dpdk: Option<Dpdk>,
        workers: Option<Workers>,
        #[serde(default)]
        ports: Vec<Spanned<Port>>,
        #[serde(default)]
        routes: Vec<Route>,
        forwarding: Option<Text>,
        shortcuts: Option<Text>,
        #[serde(default)]
        neighbours: Vec<Neighbour>,
        flows: Option<Flows>,
        cluster: Option<Cluster>,
        children: Vec<Child>,
        virtual_hosts: Vec<VirtualHost>,
        metrics: Option<Metrics>,
        control: Option<Control>,
        #[serde(default)]
        parents: Vec<Parent>,
        recovery: Option<Recovery>,
    }
    Router {
        name: Text,
        level: Option<Text>,
        #[serde(default)]
        tunnel_addresses: Vec<Text>,
        #[serde(default)]
        tunnel_source_prefixes: Vec<Text>,
        #[serde(default)]
        parents: Vec<Text>,
        gue_port: Option<Text>,
    }
    Dpdk {
        hugepages: Option<Text>,
        memory: Option<Text>,
        buffers: Option<Text>,
        file_prefix: Option<Text>,
    }
    Workers {
        count: Option<Text>,
        cpus: Option<Spanned<Vec<Text>>>,
        idle: Option<Text>,
    }
    Port {
        name: Text,
        device: Text,
        mtu: Option<Text>,
        #[serde(default)]
        addresses: Vec<Text>,
        vlan: Option<Text>,
    }
    Route {
        prefix: Text,
        via: Text,
    }
    Neighbour {
        address: Text,
        mac: Text,
    }
    Flows {
        capacity_v4: Option<Text>,
        capacity_v6: Option<Text>,
        inserts_per_second: Option<Text>,
        timeouts: Option<Timeouts>,
    }
    Timeouts {
        tcp_syn: Option<Text>,
        tcp_established: Option<Text>,
        tcp_fin: Option<Text>,
        tcp_rst: Option<Text>,
        udp: Option<Text>,
        other: Option<Text>,
    }
    Cluster {
        key: Option<Text>,
        table_size: Option<Text>,
    }
    Child {
        name: Text,
        address: Option<Text>,
        tunnel: Option<Spanned<WordOr<Tunnel>>>,
        register: Option<Text>,
        route_cost: Option<Text>,
    }
    Tunnel {
        gue: Option<Gue>,
        mpls: Option<Mpls>,
    }
    Gue {
        port: Option<Text>,
        variant: Option<Text>,
    }
    Mpls {
        label: Text,
    }
    VirtualHost {
        name: Text,
        addresses: Spanned<Vec<Text>>,
        services: Option<Spanned<Vec<Text>>>,
        flow: Option<Spanned<WordOr<Source>>>,
        selection: Option<Text>,
        cost_function: Option<Text>,
        aggregate_function: Option<Text>,
        echo: Option<Text>,
        quic: Option<Spanned<Quic>>,
        mss_clamp: Option<Text>,
        table_size: Option<Text>,
        children: Spanned<Vec<Spanned<WordOr<Member>>>>,
        health: Option<Spanned<WordOr<Health>>>,
        on_failure: Option<Text>,
        on_unknown: Option<Text>,
    }
    Health {
        icmp: Option<Spanned<Icmp>>,
        tcp: Option<Spanned<Tcp>>,
        http: Option<Spanned<Http>>,
        https: Option<Spanned<Https>>,
        tls: Option<Spanned<Tls>>,
        dns: Option<Spanned<Dns>>,
        command: Option<Spanned<Vec<Text>>>,
        address: Option<Text>,
        interval: Option<Text>,
        timeout: Option<Text>,
        jitter: Option<Text>,
        rise: Option<Text>,
        fall: Option<Text>,
        initial: Option<Text>,
    }
    Icmp {
    }
    Tcp {
        port: Option<Text>,
    }
    Http {
        port: Option<Text>,
        path: Option<Text>,
        host: Option<Text>,
        expect: Option<Text>,
    }
    Https {
        port: Option<Text>,
        path: Option<Text>,
        host: Option<Text>,
        expect: Option<Text>,
        server_name: Option<Text>,
        ca: Option<Text>,
    }
    Tls {
        port: Option<Text>,
        server_name: Option<Text>,
        ca: Option<Text>,
    }
    Dns {
        port: Option<Text>,
        name: Text,
        #[serde(rename = "type")]
        record: Option<Text>,
    }
    Source {
        source: SourceLengths,
    }
    SourceLengths {
        v4: Option<Text>,
        v6: Option<Text>,
    }
    Member {
        name: Text,
        weight: Option<Text>,
        cost: Option<Text>,
        tier: Option<Text>,
        server_id: Option<Text>,
    }
    Quic {
        length: Text,
        offset: Option<Text>,
        server_id_length: Text,
    }
    Metrics {
        listen: Option<Text>,
    }
    Control {
        socket: Option<Text>,
        listen: Option<Text>,
        interval: Option<Text>,
        certificate: Option<Text>,
        key: Option<Text>,
        authority: Option<Text>,
    }
    Parent {
        name: Text,
        address: Text,
    }
    Recovery {
        ask_workers: Option<Text>,
        first_packets: Option<Text>,
        whohas: Option<Whohas>,
        echo: Option<Echo>,
    }
    Whohas {
        listen: Text,
        key: Text,
        #[serde(default)]
        peers: Vec<Text>,
        hops: Option<Text>,
        patience: Option<Text>,
        questions_per_second: Option<Text>,
    }
    Echo {
        key: Text,
    }
}

/// A single word, or a map where more than the word is to be said.
pub(super) enum WordOr<T> {
    Word(String),
    // Boxed: lists are long, and nearly all of their items are words.
    Map(Box<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap<T>(PhantomData<T>);

        /// An unquoted word that YAML takes for something else.
        fn not_a_word<E: serde::de::Error>(value: &dyn fmt::Display) -> E {
            E::custom(format_args!(
                "this reads as the value {value}; put it in quotes to make it a word, like \"1\" or \"no\""
            ))
        }

        impl<'de, T: Deserialize<'de>> Visitor<'de> for WordOrMap<T> {
            type Value = WordOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a map")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(WordOr::Word(word.to_owned()))
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Err(not_a_word(&value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Err(not_a_word(&value))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Err(not_a_word(&value))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Err(not_a_word(&value))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|map| WordOr::Map(Box::new(map)))
            }
        }

        deserializer.deserialize_any(WordOrMap(PhantomData))
    }
}

/// What differs in the errors of one program's configuration from another's.
pub(super) struct Dialect {
    /// A file to compare with.
    pub sample: &'static str,
    /// How the shortest file starts.
    pub start: &'static str,
    /// A right use of keys that mean something else here than [`example`] shows, at a depth: 1 is the first column.
    pub examples: &'static [(&'static str, bool, &'static str)],
}

/// That of the router.
pub(super) const ROUTER: Dialect = Dialect {
    sample: "dpdk-config/lab.yaml",
    start: "dpdk-config/*.yaml, or with router: { name: edge1 }",
    examples: &[
        ("children", true, "children: [{ name: server1, address: 10.0.1.1 }]"),
        ("parents", true, "parents: [{ name: system1, address: 10.255.0.9:9478 }]"),
    ],
};

impl Dialect {
    /// An example of a key in the map that `place` is in; a key of two meanings is told by its depth.
    fn example_at(&self, key: &str, place: Place) -> &'static str {
        let own = self.examples.iter().find(|(name, first, _)| *name == key && (!first || place.column == 1));
        own.map_or_else(|| example(key), |(_, _, example)| example)
    }
}

/// Reads the keys; what the values mean is not looked at.
pub(super) fn read<T: DeserializeOwned>(text: &str, dialect: &Dialect) -> Result<T, Fault> {
    let options = serde_saphyr::options! {
        // Room for 100,000 virtual hosts and more, but an end to what a hostile file makes of a few bytes.
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 50_000_000,
            max_total_scalar_bytes: 1 << 30,
            max_depth: 32,
            // A second one gets an error of its own.
            max_documents: 2,
            // One anchor that many virtual hosts refer to is an honest use; the limits below bound the other kind.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 2_000_000,
            max_replay_stack_depth: 16,
        },
        // A key that is merged in from elsewhere is hard to find, and merges of merges multiply.
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or(Place { line: 1, column: 1 }, Place::from);
        Fault { place: Some(place), message: explain(&error, text, place, dialect) }
    })
}

/// Says what the parser found in the words of this configuration.
fn explain(error: &Error, text: &str, place: Place, dialect: &Dialect) -> String {
    match error {
        Error::AliasError { error, .. } => explain(error, text, place, dialect),
        Error::SerdeUnknownField { field, expected, .. } => match nearest(field, expected.iter().copied()) {
            Some(near) => {
                format!("unknown key {}; did you mean \"{near}\"? ({})", quote(field), dialect.example_at(near, place))
            }
            None if expected.is_empty() => format!("unknown key {}; nothing stands in these braces: {{}}", quote(field)),
            None => format!("unknown key {}; the keys here are {}", quote(field), expected.join(", ")),
        },
        Error::SerdeMissingField { field, .. } => {
            format!("missing key \"{field}\"; add it: {}", dialect.example_at(field, place))
        }
        Error::DuplicateMappingKey { key, .. } => {
            format!("key {} is given twice in one map; keep one of them", quote(key.as_deref().unwrap_or("?")))
        }
        Error::Unexpected { expected: "string scalar", .. } => {
            format!("a single value is expected here, not a list or a map{}", hint(text, place, dialect, ""))
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            format!("a list is expected here; write it in brackets or with one \"- \" a line{}", hint(text, place, dialect, ""))
        }
        Error::Unexpected { expected: "mapping start", .. } => {
            format!(
                "a map is expected here; write it in braces or with one key a line{}",
                hint(text, place, dialect, "{ name: server1 }")
            )
        }
        Error::NullIntoString { .. } => {
            format!("the value is missing; write one{}", hint(text, place, dialect, ""))
        }
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            let found = if unexpected == "sequence" { "a list" } else { "nothing" };
            let example = "flow: 5-tuple, tunnel: gre, health: tcp or children: [server1, { name: server2, weight: 10 }]";
            format!("{expected} is expected here, not {found}; write it like {example}")
        }
        Error::Eof { .. } => {
            format!("the file holds no configuration; start from one of {}", dialect.start)
        }
        Error::MultipleDocuments { .. } => {
            "a second YAML document starts here; keep one document: remove the line \"---\" and what is not wanted"
                .into()
        }
        Error::UnsupportedTag { .. } => {
            "YAML tags have no meaning here; leave out the word that starts with \"!\"".into()
        }
        Error::UnknownAnchor { .. } => {
            "this alias has no anchor; put the anchor before it (&farm) or quote a value that starts with \"*\"".into()
        }
        Error::MergeKeyNotAllowed { .. } => {
            "\"<<\" has no meaning here; write the keys out, or share a whole value: children: &all [server1], children: *all".into()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "the file nests or repeats (anchors and aliases) beyond all measure; write it flat".into()
        }
        Error::ExternalMessage { msg, .. } => {
            format!("not valid YAML: {}; check the indentation, brackets and quotes before this place", one_line(msg))
        }
        Error::Message { msg, .. } => one_line(msg),
        other => {
            let said = one_line(&other.to_string());
            let said = said.split(" at line ").next().unwrap_or_default();
            format!("not a configuration: {said}; compare with {}", dialect.sample)
        }
    }
}

/// An example of the key whose value starts (or, left out, should start) at `place`, as far as the line shows the
/// key; `otherwise` where it does not.
fn hint(text: &str, place: Place, dialect: &Dialect, otherwise: &str) -> String {
    let line = text.lines().nth(place.line as usize - 1).unwrap_or_default();
    let upto = |column| line.chars().take(column).collect::<String>();
    let (before, with) = (upto(place.column as usize - 1), upto(place.column as usize));
    let before = before.trim_end().strip_suffix(':').or(with.strip_suffix(':')).unwrap_or_default();
    let key = before.rsplit([' ', '{', ',', '\t']).next().unwrap_or_default();
    // Its first character stands where the line starts.
    let top = if line.starts_with(key) { 1 } else { place.column };
    match (dialect.example_at(key, Place { column: top, ..place }), otherwise) {
        ("", "") => String::new(),
        ("", example) | (example, _) => format!(": {example}"),
    }
}
