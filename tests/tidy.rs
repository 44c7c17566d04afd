//! House rules that a compiler does not hold: who may import whom, where `unsafe` may stand, what a worker may not use.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, and the rooms of this crate that each may name beside itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("clock", &["units"]),
    ("netlink", &[]),
    ("packet", &["units", "clock"]),
    ("flow", &["packet", "units", "clock"]),
    ("service", &["packet", "units", "clock"]),
    ("tunnel", &["packet", "units", "clock"]),
    ("forward", &["flow", "service", "tunnel", "packet", "units", "clock"]),
    ("trust", &["clock"]),
    ("cost", &["clock"]),
    ("config", &["clock", "cost", "service", "trust", "units"]),
    ("dpdk", &["flow", "packet", "units", "clock"]),
    ("recovery", &["clock", "config", "flow", "forward", "packet", "trust", "tunnel", "units"]),
    ("ha", &["clock", "forward", "packet", "trust", "units"]),
    (
        "control",
        &[
            "clock", "config", "cost", "flow", "forward", "ha", "packet", "recovery", "service", "trust", "tunnel",
            "units",
        ],
    ),
    ("transport", &["config", "control", "trust"]),
    ("sim", &["clock", "config", "control", "cost", "flow", "forward", "service", "trust"]),
    ("metrics", &["clock", "control", "forward", "ha", "recovery", "units"]),
    (
        "ctl",
        &[
            "clock", "config", "control", "flow", "forward", "ha", "metrics", "packet", "recovery", "service",
            "tunnel", "units",
        ],
    ),
    ("commands", &["control"]),
    (
        "agent",
        &[
            "clock",
            "commands",
            "config",
            "control",
            "ctl",
            "metrics",
            "netlink",
            "packet",
            "recovery",
            "service",
            "transport",
            "tunnel",
            "units",
        ],
    ),
    (
        "daemon",
        &[
            "clock",
            "commands",
            "config",
            "control",
            "ctl",
            "dpdk",
            "forward",
            "ha",
            "metrics",
            "netlink",
            "recovery",
            "transport",
            "units",
        ],
    ),
    (
        "replay",
        &["clock", "config", "control", "daemon", "dpdk", "forward", "metrics", "packet", "service", "tunnel", "units"],
    ),
];

/// Rooms below the slow path, and words that must not stand in them.
const MUST_NOT_USE: &[(&str, &[&str])] = &[
    ("packet", LOW),
    ("flow", LOW),
    ("service", LOW),
    ("tunnel", LOW),
    ("forward", LOW),
    ("recovery", MACHINES),
    ("ha", MACHINES),
    ("control", MACHINES),
];
const MACHINES: &[&str] = &["std::time::Instant", "SystemTime", "TcpStream", "UdpSocket", "TcpListener"];
const LOW: &[&str] = &[
    "std::time::Instant",
    "SystemTime",
    "TcpStream",
    "UdpSocket",
    "TcpListener",
    "std::thread",
    "Mutex",
    "RwLock",
    "serde",
    "tokio",
    "println!",
    "eprintln!",
    "tracing",
];

/// Every Rust file of the crate's library, with its room and its text up to the unit tests.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).expect("below the root");
                let first = relative.components().next().expect("a file").as_os_str().to_string_lossy();
                let room = first.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((room, relative.to_owned(), text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The file's own code: neither comments nor unit tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn arrows_between_rooms_point_down() {
    for (room, path, text) in sources() {
        if matches!(room.as_str(), "lib" | "bin") {
            continue;
        }
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("{room}: a room that MAY_IMPORT does not know"));
        for rest in code(&text).split("crate::").skip(1) {
            let named: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let fine = named.is_empty() || named == room || allowed.contains(&named.as_str());
            assert!(fine, "{}: {room} must not import {named}", path.display());
        }
    }
}

#[test]
fn low_rooms_do_without_clocks_sockets_threads_locks_and_logs() {
    for (room, path, text) in sources() {
        for (_, words) in MUST_NOT_USE.iter().filter(|(name, _)| *name == room) {
            for word in *words {
                assert!(!code(&text).contains(word), "{}: {room} must not use {word}", path.display());
            }
        }
    }
}

/// What can be written through a shared reference has one of these in it.
const WRITABLE: &[&str] = &["Atomic", "Cell<", "ArrayQueue", "ArcSwap", "OnceLock", "LazyLock", "static mut"];

/// Where there is such a thing all the same, and why no worker writes to another one's cache lines for a packet of a known flow.
const WRITTEN: &[(&str, &str, &str)] = &[
    ("flow/limit.rs", "Cell<", "each worker has its own"),
    ("service/selection.rs", "Atomic", "round robin's cursor, once for each new flow"),
    ("forward/counters.rs", "Atomic", "each worker has its own, with room around them"),
    ("forward/visit.rs", "Cell<", "on a worker's stack"),
    ("forward/worker.rs", "Atomic", "whether to stop, which it only reads"),
    ("forward/tables.rs", "ArcSwap", "which snapshot is in force, which it only reads"),
    ("forward/inspect.rs", "Atomic", "what the slow path asks one worker; read"),
    ("forward/inspect.rs", "ArrayQueue", "the answers"),
    ("forward/punt.rs", "ArrayQueue", "what the slow path gets from one worker"),
    ("forward/orders.rs", "ArrayQueue", "what one worker is told, and new flows that it tells"),
];

#[test]
fn workers_write_to_nothing_that_they_share_but_what_is_known_and_why() {
    for (room, path, text) in sources() {
        if !matches!(room.as_str(), "packet" | "flow" | "service" | "tunnel" | "forward") {
            continue;
        }
        let name = path.to_string_lossy();
        for word in WRITABLE {
            let known = WRITTEN.iter().any(|(file, what, _)| (*file, what) == (&*name, word));
            assert_eq!(code(&text).contains(word), known, "{name}: {word}: say in WRITTEN why that is not shared");
        }
    }
}

#[test]
fn unsafe_stands_in_one_room_and_says_why() {
    for (room, path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap_or(line);
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let unsafe_here = words.clone().any(|word| word == "unsafe");
            assert!(!unsafe_here || room == "dpdk", "{}:{}: unsafe outside dpdk", path.display(), number + 1);
        }
    }
    let manifest = include_str!("../Cargo.toml");
    for lint in ["unsafe_code = \"deny\"", "unsafe_op_in_unsafe_fn = \"deny\"", "undocumented_unsafe_blocks = \"deny\""]
    {
        assert!(manifest.contains(lint), "Cargo.toml: {lint} is gone");
    }
}

#[test]
fn every_file_says_first_what_it_decides() {
    for (_, path, text) in sources() {
        assert!(text.starts_with("//! "), "{}: no module documentation", path.display());
    }
}

#[test]
fn every_file_of_tests_is_in_the_one_program() {
    let all = include_str!("all.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in fs::read_dir(folder).expect("tests") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        if path.extension().is_some_and(|extension| extension == "rs") && name != "all" {
            assert!(all.contains(&format!("\nmod {name};")), "tests/all.rs: no line \"mod {name};\"");
        }
    }
}
