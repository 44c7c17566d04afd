//! Which keys exist, at what depth, and whether each holds a value, a list or a map.
//!
//! Every single value is kept as its text with its place, so that `check` alone decides what it means.

use serde_saphyr::Error;

use super::error::{Fault, Place, nearest, one_line, quote};
use super::tree::{Misfit, Node, Read, Spanned, Value, What, parse, raw};
use super::values::example;

/// A single value as it was written.
pub(super) type Text = Spanned<String>;

raw! {
    Config {
        router: Router,
        dpdk: Option<Dpdk>,
        workers: Option<Workers>,
        ports: Vec<Spanned<Port>>,
        routes: Vec<Route>,
        forwarding: Option<Text>,
        shortcuts: Option<Text>,
        neighbours: Vec<Neighbour>,
        flows: Option<Flows>,
        cluster: Option<Cluster>,
        geoip: Option<Text>,
        client_regions: Vec<ClientRegion>,
        children: Spanned<ListOr<Site>>,
        virtual_hosts: Spanned<Vec<VirtualHost>>,
        metrics: Option<Metrics>,
        control: Option<Control>,
        parents: Vec<Parent>,
        recovery: Option<Recovery>,
        pair: Option<Pair>,
    }
    Router {
        name: Text,
        level: Option<Text>,
        tunnel_addresses: Vec<Text>,
        tunnel_source_prefixes: Vec<Text>,
        parents: Vec<Text>,
        gue_port: Option<Text>,
        time_zone: Option<Text>,
        route_cost: Option<Text>,
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
    Table {
        children: Spanned<Vec<Child>>,
    }
    Site {
        url: Text,
        authority: Option<Text>,
        interval: Option<Text>,
        copy: Option<Text>,
    }
    ClientRegion {
        name: Text,
        prefixes: Vec<Text>,
        continents: Vec<Text>,
        countries: Vec<Text>,
        subdivisions: Vec<Text>,
    }
    Child {
        name: Text,
        address: Option<Text>,
        tunnel: Option<Spanned<WordOr<Tunnel>>>,
        register: Option<Text>,
        route_cost: Option<Text>,
        labels: Vec<Text>,
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
        children: Spanned<Members>,
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
        record as "type": Option<Text>,
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
        registration: Option<Text>,
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
        peers: Vec<Text>,
        hops: Option<Text>,
        patience: Option<Text>,
        questions_per_second: Option<Text>,
    }
    Echo {
        key: Text,
    }
    Pair {
        access: Text,
        id: Text,
        virtual_addresses: Spanned<Vec<Text>>,
        priority: Option<Text>,
        heartbeat: Option<Text>,
        preempt: Option<Text>,
        virtual_mac: Option<Text>,
        peer: Option<Peer>,
        mirror_after: Option<Text>,
        requires: Option<Requires>,
    }
    Peer {
        listen: Text,
        address: Text,
        key: Text,
    }
    Requires {
        links: Option<Vec<Text>>,
        gateways: Vec<Text>,
        live_children: Option<Text>,
        penalty: Option<Text>,
    }
}

/// A single word, or a map where more than the word is to be said.
pub(super) enum WordOr<T> {
    Word(String),
    // Boxed: lists are long, and nearly all of their items are words.
    Map(Box<T>),
}

impl<T: Read> Read for WordOr<T> {
    fn read(node: Node) -> Result<WordOr<T>, Misfit> {
        match node.value {
            Value::Word(word) => Ok(WordOr::Word(word)),
            Value::Map(_) => T::read(node).map(|map| WordOr::Map(Box::new(map))),
            Value::Other { meaning, .. } => Err(Misfit { place: node.place, what: What::NotWord(meaning) }),
            Value::List(_) => Err(node.misfit(What::NeitherWordNorMap("a list"))),
            Value::Nothing => Err(node.misfit(What::NeitherWordNorMap("nothing"))),
        }
    }
}

/// The children themselves, or a map that says where they are.
pub(super) enum ListOr<T> {
    List(Vec<Child>),
    Map(Box<T>),
}

impl<T: Read> Read for ListOr<T> {
    fn read(node: Node) -> Result<ListOr<T>, Misfit> {
        match node.value {
            Value::Map(_) => T::read(node).map(|map| ListOr::Map(Box::new(map))),
            _ => Vec::read(node).map(ListOr::List),
        }
    }
}

/// The children of a virtual host: all that there are, or those of a list.
pub(super) enum Members {
    All,
    Listed(Vec<Spanned<WordOr<Member>>>),
}

impl Read for Members {
    fn read(node: Node) -> Result<Members, Misfit> {
        match node.value {
            Value::Word(word) if word == "all" => Ok(Members::All),
            _ => Vec::read(node).map(Members::Listed),
        }
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

/// That of a site's table of children.
pub(super) const TABLE: Dialect = Dialect {
    sample: "children: [{ name: server1, address: 10.0.1.1 }]",
    start: "children: [{ name: server1, address: 10.0.1.1 }]",
    examples: &[("children", true, "children: [{ name: server1, address: 10.0.1.1 }]")],
};

impl Dialect {
    /// An example of a key in the map that `place` is in; a key of two meanings is told by its depth.
    fn example_at(&self, key: &str, place: Place) -> &'static str {
        let own = self.examples.iter().find(|(name, first, _)| *name == key && (!first || place.column == 1));
        own.map_or_else(|| example(key), |(_, _, example)| example)
    }
}

/// Reads the keys; what the values mean is not looked at.
pub(super) fn read<T: Read>(text: &str, dialect: &Dialect) -> Result<T, Fault> {
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
        // What a number may be is for `check` to say.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    let node = parse(text, options).map_err(|error| {
        let place = error.location().map_or(Place { line: 1, column: 1 }, Place::from);
        Fault::somewhere(place, explain(&error, dialect))
    })?;
    if matches!(node.value, Value::Nothing) {
        let message = format!("the file holds no configuration; start from one of {}", dialect.start);
        return Err(Fault::somewhere(node.place, message));
    }
    T::read(node).map_err(|Misfit { place, what }| {
        let hint = |otherwise: &str| hint(text, place, dialect, otherwise);
        Fault::somewhere(place, say(what, &hint, &|key| dialect.example_at(key, place)))
    })
}

/// Says what does not belong where it is. `hint` gives an example of the key there, or else the one that it is given;
/// `example` one of a key in the same map.
fn say(what: What, hint: &dyn Fn(&str) -> String, example: &dyn Fn(&str) -> &'static str) -> String {
    match what {
        What::UnknownKey { key, known } => match nearest(&key, known.iter().copied()) {
            Some(near) => format!("unknown key {}; did you mean \"{near}\"? ({})", quote(&key), example(near)),
            None if known.is_empty() => format!("unknown key {}; nothing stands in these braces: {{}}", quote(&key)),
            None => format!("unknown key {}; the keys here are {}", quote(&key), known.join(", ")),
        },
        What::MissingKey(key) => format!("missing key \"{key}\"; add it: {}", example(key)),
        What::NoValue => format!("the value is missing; write one{}", hint("")),
        What::NotSingle => format!("a single value is expected here, not a list or a map{}", hint("")),
        What::NotList => {
            format!("a list is expected here; write it in brackets or with one \"- \" a line{}", hint(""))
        }
        What::NotMap => {
            format!("a map is expected here; write it in braces or with one key a line{}", hint("{ name: server1 }"))
        }
        What::NotWord(meaning) => {
            format!("this reads as the value {meaning}; put it in quotes to make it a word, like \"1\" or \"no\"")
        }
        What::NeitherWordNorMap(found) => {
            let example =
                "flow: 5-tuple, tunnel: gre, health: tcp or children: [server1, { name: server2, weight: 10 }]";
            format!("a word or a map is expected here, not {found}; write it like {example}")
        }
    }
}

/// Says what the parser found in the words of this configuration.
fn explain(error: &Error, dialect: &Dialect) -> String {
    match error {
        Error::AliasError { error, .. } => explain(error, dialect),
        Error::DuplicateMappingKey { key, .. } => {
            format!("key {} is given twice in one map; keep one of them", quote(key.as_deref().unwrap_or("?")))
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
