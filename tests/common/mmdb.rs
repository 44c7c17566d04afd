//! Writes MaxMind databases: a search tree of 24-bit records, data, metadata (the format's version 2).

use ipnet::IpNet;

/// A node's two ways.
#[derive(Clone, Copy)]
enum Way {
    Nothing,
    Node(usize),
    /// The data of the network, by its position.
    Data(usize),
}

/// What a place is called: continent, country and subdivision; empty ones are left out.
pub type Place = [&'static str; 3];

/// A database that says of each network where it is. IPv4 networks are in an IPv6 tree, as in GeoLite2.
pub fn database(networks: &[(&str, Place)]) -> Vec<u8> {
    let mut nodes = vec![[Way::Nothing; 2]];
    for (position, (text, _)) in networks.iter().enumerate() {
        let (bits, length) = match text.parse().expect("a prefix") {
            IpNet::V4(net) => (u128::from(net.network().to_bits()), net.prefix_len() + 96),
            IpNet::V6(net) => (net.network().to_bits(), net.prefix_len()),
        };
        let mut node = 0;
        for bit in 0..length {
            let way = usize::from(bits >> (127 - bit) & 1 != 0);
            if bit + 1 == length {
                nodes[node][way] = Way::Data(position);
            } else if let Way::Node(next) = nodes[node][way] {
                node = next;
            } else {
                nodes.push([Way::Nothing; 2]);
                nodes[node][way] = Way::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
    }
    let (mut data, mut offsets) = (Vec::new(), Vec::new());
    for (_, [continent, country, subdivision]) in networks {
        offsets.push(data.len());
        let named = |key: &str, kind: &str, code: &str| [text(key), map(1, [text(kind), text(code)].concat())].concat();
        let mut entries = Vec::new();
        if !continent.is_empty() {
            entries.push(named("continent", "code", continent));
        }
        if !country.is_empty() {
            entries.push(named("country", "iso_code", country));
        }
        if !subdivision.is_empty() {
            let one = map(1, [text("iso_code"), text(subdivision)].concat());
            // An array of one: an extended type.
            entries.push([text("subdivisions"), vec![1, 4], one].concat());
        }
        data.extend(map(entries.len(), entries.concat()));
    }
    let record = |way: Way| match way {
        Way::Nothing => nodes.len(),
        Way::Node(node) => node,
        Way::Data(position) => nodes.len() + 16 + offsets[position],
    };
    let mut bytes: Vec<u8> =
        nodes.iter().flatten().flat_map(|way| (record(*way) as u32).to_be_bytes().into_iter().skip(1)).collect();
    bytes.extend([0; 16]);
    bytes.extend(data);
    bytes.extend(b"\xab\xcd\xefMaxMind.com");
    let short = |key: &str, value: u16| [text(key), vec![5 << 5 | 2], value.to_be_bytes().to_vec()].concat();
    bytes.extend(map(
        9,
        [
            short("binary_format_major_version", 2),
            short("binary_format_minor_version", 0),
            [text("build_epoch"), vec![8, 2], 1_700_000_000_u64.to_be_bytes().to_vec()].concat(),
            [text("database_type"), text("Test-City")].concat(),
            [text("description"), map(1, [text("en"), text("a test")].concat())].concat(),
            short("ip_version", 6),
            [text("languages"), vec![1, 4], text("en")].concat(),
            [text("node_count"), vec![6 << 5 | 4], (nodes.len() as u32).to_be_bytes().to_vec()].concat(),
            short("record_size", 24),
        ]
        .concat(),
    ));
    bytes
}

fn text(text: &str) -> Vec<u8> {
    assert!(text.len() < 29, "a longer text has its length elsewhere");
    [vec![2 << 5 | text.len() as u8], text.as_bytes().to_vec()].concat()
}

fn map(entries: usize, inner: Vec<u8>) -> Vec<u8> {
    [vec![7 << 5 | entries as u8], inner].concat()
}
