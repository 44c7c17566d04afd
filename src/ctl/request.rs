//! What a running router can be asked, and asked for.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::flow::state::FlowState;

/// Bytes of a request at most; the longest is the filter of a capture.
pub const REQUEST_MAX: usize = 256 << 10;

/// Flows that are listed where nobody says how many.
pub const FLOWS_DEFAULT: u32 = 1000;

/// A request; its JSON is `{"command": "drain", "child": "server1"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// [`Status`](super::response::Status).
    Status,
    /// A list of [`PortRow`](super::response::PortRow).
    Ports,
    /// A list of [`ServiceRow`](super::response::ServiceRow).
    Services,
    /// A list of [`ChildRow`](super::response::ChildRow).
    Children,
    /// A list of [`ParentRow`](super::response::ParentRow).
    Parents,
    /// A list of [`NeighbourRow`](super::response::NeighbourRow).
    Neighbours,
    /// [`Counters`](super::response::Counters).
    Counters,
    /// Items of [`FlowRow`](super::response::FlowRow), then [`FlowsEnd`](super::response::FlowsEnd).
    Flows(FlowFilter),
    /// [`Trace`](super::response::Trace).
    Trace(TraceRequest),
    /// Items of [`CaptureItem`](super::response::CaptureItem), then [`CaptureEnd`](super::response::CaptureEnd).
    Capture(CaptureRequest),
    /// No new flows for a child. [`Done`](super::response::Done).
    Drain {
        /// Its name.
        child: String,
    },
    /// As many new flows as before for a child. [`Done`](super::response::Done).
    Undrain {
        /// Its name.
        child: String,
    },
    /// Another weight for a child in all its virtual hosts. [`Done`](super::response::Done).
    Weight {
        /// Its name.
        child: String,
        /// From 0 to 10,000; `None` is the configured one.
        weight: Option<u16>,
    },
    /// Read the configuration again. [`Done`](super::response::Done).
    Reload,
    /// [`Recovery`](super::response::Recovery).
    Recovery,
    /// [`Pair`](super::response::Pair).
    Ha,
    /// The other router of the pair is to be active, or this one. [`Done`](super::response::Done).
    HaWish {
        /// This one.
        active: bool,
    },
    /// No flows for a worker, as after a start: to try out what happens. [`Done`](super::response::Done).
    Forget {
        /// Its number.
        worker: u16,
    },
}

/// Which flows; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowFilter {
    /// Destinations.
    pub vip: Option<IpNet>,
    /// Name of the virtual host.
    pub host: Option<String>,
    /// Name of the child.
    pub child: Option<String>,
    /// Sources.
    pub src: Option<IpNet>,
    /// Destination port.
    pub port: Option<u16>,
    /// IP protocol number.
    pub proto: Option<u8>,
    /// [`FlowState::label`].
    pub state: Option<String>,
    /// Flows at most; [`FLOWS_DEFAULT`] where it is not said.
    pub limit: Option<u32>,
}

/// Why words do not say which flows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a word with a value.
    #[error("\"{0}\" says nothing about flows; write one of vip=, host=, child=, src=, port=, proto=, state=, limit=")]
    Word(String),
    /// A value that it cannot have.
    #[error("{word}={value} is not right; write it like {example}")]
    Value {
        /// The word.
        word: &'static str,
        /// What stands behind it.
        value: String,
        /// How it is right.
        example: &'static str,
    },
    /// Said twice.
    #[error("{0}= is there twice; keep one of them")]
    Twice(&'static str),
}

impl FlowFilter {
    /// Reads words like `vip=192.0.2.80`, `proto=tcp`, `limit=100`; all of them must hold.
    ///
    /// # Errors
    /// The first word that says nothing.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<FlowFilter, FilterError> {
        let mut filter = FlowFilter::default();
        for whole in words {
            let Some((word, value)) = whole.split_once('=') else { return Err(FilterError::Word(whole.to_owned())) };
            match word {
                "vip" => set(&mut filter.vip, "vip", value, "vip=192.0.2.80 or vip=192.0.2.0/24", net)?,
                "src" => set(&mut filter.src, "src", value, "src=198.51.100.7 or src=10.0.0.0/8", net)?,
                "host" => set(&mut filter.host, "host", value, "host=web", name)?,
                "child" => set(&mut filter.child, "child", value, "child=server1", name)?,
                "port" => set(&mut filter.port, "port", value, "port=443", |value| value.parse().ok())?,
                "proto" => set(&mut filter.proto, "proto", value, "proto=tcp or proto=47", protocol)?,
                "state" => {
                    set(&mut filter.state, "state", value, "state=syn, established, fin, rst, udp or other", state)?
                }
                "limit" => set(&mut filter.limit, "limit", value, "limit=100", |value| value.parse().ok())?,
                _ => return Err(FilterError::Word(whole.to_owned())),
            }
        }
        Ok(filter)
    }
}

fn set<T>(
    slot: &mut Option<T>,
    word: &'static str,
    value: &str,
    example: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<(), FilterError> {
    let wrong = || FilterError::Value { word, value: value.to_owned(), example };
    match slot.replace(read(value).ok_or_else(wrong)?) {
        Some(_) => Err(FilterError::Twice(word)),
        None => Ok(()),
    }
}

fn net(value: &str) -> Option<IpNet> {
    value.parse::<IpAddr>().map(IpNet::from).or_else(|_| value.parse()).ok()
}

fn name(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn state(value: &str) -> Option<String> {
    FlowState::ALL.iter().any(|state| state.label() == value).then(|| value.to_owned())
}

/// The number of an IP protocol by its name or number.
pub fn protocol(value: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(_, name)| *name == value).map(|(number, _)| *number);
    named.or_else(|| value.parse().ok())
}

/// The name of an IP protocol, or its number where it has none here.
pub fn protocol_name(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(known, _)| *known == number);
    named.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

const PROTOCOLS: [(u8, &str); 7] =
    [(1, "icmp"), (6, "tcp"), (17, "udp"), (33, "dccp"), (50, "esp"), (58, "icmpv6"), (132, "sctp")];

/// Which packet is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes; of the same family.
    pub destination: SocketAddr,
    /// IP protocol number; the ports count for protocols that have some.
    pub protocol: u8,
}

/// Which frames are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// A program of the classic Berkeley packet filter for Ethernet frames: code, jt, jf, k of each instruction.
    pub program: Vec<(u16, u8, u8, u32)>,
    /// Only frames that are dropped.
    #[serde(default)]
    pub drops: bool,
    /// Bytes of each frame, from 1 to 2048.
    pub snap_len: u16,
    /// Frames at most.
    pub count: Option<u64>,
    /// Time at most, in seconds.
    pub seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_which_flows() {
        let words = "vip=192.0.2.80 host=web child=server1 src=10.0.0.0/8 port=443 proto=tcp state=established limit=5";
        let filter = FlowFilter::from_words(words.split(' ')).expect("a filter");
        let expected = FlowFilter {
            vip: Some("192.0.2.80/32".parse().unwrap()),
            host: Some("web".into()),
            child: Some("server1".into()),
            src: Some("10.0.0.0/8".parse().unwrap()),
            port: Some(443),
            proto: Some(6),
            state: Some("established".into()),
            limit: Some(5),
        };
        assert_eq!(filter, expected);
        assert_eq!(FlowFilter::from_words([]), Ok(FlowFilter::default()));
        assert_eq!(FlowFilter::from_words(["proto=47"]).unwrap().proto, Some(47));
        assert_eq!(FlowFilter::from_words(["vip=2001:db8::/64"]).unwrap().vip, "2001:db8::/64".parse().ok());
    }

    #[test]
    fn words_that_say_nothing_are_refused_with_what_is_right() {
        for (words, error) in [
            (
                "tcp",
                "\"tcp\" says nothing about flows; write one of vip=, host=, child=, src=, port=, proto=, state=, limit=",
            ),
            (
                "dst=1.2.3.4",
                "\"dst=1.2.3.4\" says nothing about flows; write one of vip=, host=, child=, src=, port=, proto=, state=, limit=",
            ),
            ("vip=web", "vip=web is not right; write it like vip=192.0.2.80 or vip=192.0.2.0/24"),
            ("src=10.0.0.0/33", "src=10.0.0.0/33 is not right; write it like src=198.51.100.7 or src=10.0.0.0/8"),
            ("port=70000", "port=70000 is not right; write it like port=443"),
            ("proto=tpc", "proto=tpc is not right; write it like proto=tcp or proto=47"),
            ("state=open", "state=open is not right; write it like state=syn, established, fin, rst, udp or other"),
            ("limit=-1", "limit=-1 is not right; write it like limit=100"),
            ("child=", "child= is not right; write it like child=server1"),
            ("port=1 port=2", "port= is there twice; keep one of them"),
        ] {
            let said = FlowFilter::from_words(words.split(' ')).expect_err(words).to_string();
            assert_eq!(said, error, "{words}");
        }
    }

    #[test]
    fn requests_are_lines_of_json() {
        let trace = TraceRequest {
            source: "198.51.100.7:40000".parse().unwrap(),
            destination: "[2001:db8::80]:80".parse().unwrap(),
            protocol: 6,
        };
        for (request, json) in [
            (Request::Status, r#"{"command":"status"}"#),
            (Request::Reload, r#"{"command":"reload"}"#),
            (Request::Drain { child: "s1".into() }, r#"{"command":"drain","child":"s1"}"#),
            (
                Request::Weight { child: "s1".into(), weight: Some(5) },
                r#"{"command":"weight","child":"s1","weight":5}"#,
            ),
            (
                Request::Trace(trace),
                r#"{"command":"trace","source":"198.51.100.7:40000","destination":"[2001:db8::80]:80","protocol":6}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), json);
            assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
        }
        let flows: Request = serde_json::from_str(r#"{"command":"flows","port":53}"#).unwrap();
        assert_eq!(flows, Request::Flows(FlowFilter { port: Some(53), ..FlowFilter::default() }));
        for wrong in
            [r#"{"command":"stop"}"#, r#"{"command":"drain"}"#, r#"{"command":"flows","prot":6}"#, "status", ""]
        {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
