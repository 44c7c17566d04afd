//! What is written is read again; nothing else is read.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::flow::key::{COARSE, KeyV4, KeyV6};
use crate::flow::state::FlowState;
use crate::forward::inspect::Key;
use crate::service::filter::Filter;

fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(octets, length)| (IpAddr::from(octets), length));
    let v6 = (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(octets, length)| (IpAddr::from(octets), length));
    prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc())
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 ._äß-]{0,60}"
}

fn record() -> impl Strategy<Value = Record> {
    let state = prop_oneof![Just(State::Serving), Just(State::Draining), Just(State::Down)];
    let service = (any::<Option<u8>>(), any::<[u16; 2]>())
        .prop_map(|(protocol, [a, b])| Filter { protocol, ports: a.min(b)..=a.max(b) });
    (net(), service, state, any::<u32>(), any::<u32>()).prop_map(|(prefix, service, state, load, capacity)| Record {
        prefix,
        service,
        state,
        load: Load(load),
        capacity,
    })
}

fn tunnel() -> impl Strategy<Value = TunnelEnd> {
    (any::<u8>(), any::<u16>(), net()).prop_map(|(kind, port, net)| TunnelEnd { kind, port, address: net.addr() })
}

fn message() -> impl Strategy<Value = Message> {
    let hello = (
        any::<[u8; 3]>(),
        any::<u32>(),
        text(),
        prop::collection::vec(tunnel(), 0..4),
        prop::collection::vec(net(), 0..9),
    )
        .prop_map(|([version, version_min, level], capabilities, name, tunnels, offers)| {
            Message::Hello(Hello { version, version_min, level, capabilities, name, tunnels, offers })
        });
    let update = (any::<[u64; 2]>(), prop::collection::vec(record(), 0..20)).prop_map(|([sequence, sent], records)| {
        Message::Update(Update { sequence: Sequence(sequence), sent: Token(sent), records })
    });
    let welcome =
        (any::<[u8; 2]>(), any::<[u32; 2]>(), any::<u64>(), text()).prop_map(|(numbers, times, wall, name)| {
            let ([version, level], [interval, expiry]) = (numbers, times.map(|ms| Duration::from_millis(ms.into())));
            Message::Welcome(Welcome { version, level, interval, expiry, wall: WallClock(wall), name })
        });
    let acknowledgement =
        (any::<[u64; 3]>(), any::<[u32; 2]>()).prop_map(|([sequence, sent, wall], [taken, refused])| {
            let (sequence, sent, wall) = (Sequence(sequence), Token(sent), WallClock(wall));
            Message::Acknowledgement(Acknowledgement { sequence, sent, wall, taken, refused })
        });
    let flow = (any::<([u8; 16], [u8; 16], [u8; 4])>(), 0..COARSE, any::<bool>()).prop_map(|(of, protocol, v4)| {
        let (source, destination, ports) = of;
        let v6 = KeyV6 { source, destination, ports, protocol };
        let first = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
        let v4_key = KeyV4 { source: first(source), destination: first(destination), ports, protocol };
        if v4 { Key::V4(v4_key) } else { Key::V6(v6) }
    });
    let shortcut = (flow.clone(), 0..=32_u8, any::<u8>(), tunnel(), any::<u32>()).prop_map(
        |(flow, source_prefix, level, end, ms)| {
            let lifetime = Duration::from_millis(ms.into());
            Shortcut { flow, source_prefix, level, end, lifetime }
        },
    );
    let kept = (flow, prop::sample::select(&FlowState::ALL[..]), any::<u32>()).prop_map(|(flow, state, ms)| Kept {
        flow,
        state,
        idle: Duration::from_millis(ms.into()),
    });
    let reason = prop::option::of(prop::sample::select(Reason::ALL));
    prop_oneof![
        hello,
        update,
        welcome,
        acknowledgement,
        any::<bool>().prop_map(Message::Drain),
        prop::collection::vec(shortcut, 0..9).prop_map(Message::Shortcuts),
        prop::collection::vec(tunnel(), 0..9).prop_map(Message::Revoke),
        prop::collection::vec(kept, 0..9).prop_map(Message::Keep),
        text().prop_map(Message::Goodbye),
        any::<u64>().prop_map(|token| Message::Echo(Token(token))),
        any::<u64>().prop_map(|token| Message::Probe(Token(token))),
        (reason, text()).prop_map(|(reason, text)| Message::Refusal(Refusal { reason, text })),
    ]
}

/// Everything in a stream that comes in these pieces.
fn read(pieces: &[&[u8]]) -> Result<Vec<Message>, WireError> {
    let (mut inbox, mut messages) = (Inbox::default(), Vec::new());
    for piece in pieces {
        inbox.push(piece);
        while let Some(message) = inbox.next_message()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_the_stream_is_cut(
        messages in prop::collection::vec(message(), 1..6), size in 1..200_usize,
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(Message::to_bytes).collect();
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        prop_assert_eq!(read(&pieces), Ok(messages));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_what_is_read_is_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let parents = [WELCOME, ACKNOWLEDGEMENT, REFUSAL, PROBE, KEEP, 99];
        for kind in [HELLO, UPDATE, DRAIN, GOODBYE, ECHO, SHORTCUTS, REVOKE].into_iter().chain(parents) {
            if let Ok(Some(message)) = Message::parse(kind, &bytes) {
                let written = message.to_bytes();
                prop_assert_eq!(Message::parse(written[0], &written[HEADER..]), Ok(Some(message)));
            }
        }
    }

    #[test]
    fn no_message_is_read_from_less_than_its_bytes(message in message(), part in 0.0..1.0_f64) {
        let whole = message.to_bytes();
        let cut = &whole[..(whole.len() as f64 * part) as usize];
        prop_assert_eq!(read(&[cut]), Ok(vec![]));
        // And a body that claims to be whole is refused.
        if let Some(body) = cut.get(HEADER..) {
            prop_assert!(Message::parse(whole[0], body).is_err());
        }
    }
}

#[test]
fn the_layout_is_that_of_the_description() {
    let record = Record {
        prefix: "192.0.2.0/24".parse().unwrap(),
        service: Filter { protocol: Some(6), ports: 80..=81 },
        state: State::Draining,
        load: Load(0x0102_0304),
        capacity: 7,
    };
    let update = Message::Update(Update { sequence: Sequence(9), sent: Token(8), records: vec![record] });
    let mut expected = vec![2, 0, 0, 22 + 36, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 36, 0, 0, 0, 1];
    expected.extend([4, 24, 192, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0, 6, 0, 80, 0, 81, 2, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 7]);
    assert_eq!(update.to_bytes(), expected);
    let refusal = Message::Refusal(Refusal { reason: Some(Reason::Prefix), text: "no".into() });
    assert_eq!(refusal.to_bytes(), [67, 0, 0, 4, 4, 2, b'n', b'o']);
    assert_eq!(Message::Echo(Token(258)).to_bytes(), [5, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn later_versions_may_add_kinds_fields_and_longer_records() {
    let unknown = [200, 0, 0, 3, 1, 2, 3];
    let longer = [3, 0, 0, 4, 1, 9, 9, 9];
    let mut stream = [unknown, [200, 0, 0, 3, 0, 0, 0]].concat();
    stream.extend(longer);
    // Two records of 40 bytes.
    let mut update = vec![2, 0, 0, 22 + 80];
    update.extend([[0; 15].as_slice(), &[1], &[0, 40], &[0, 0, 0, 2]].concat());
    for last in [1, 2] {
        update.extend([6, 128].into_iter().chain(Ipv6Addr::from(u128::from(last as u8)).octets()));
        update.extend([1, 0, 0, 0, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, last as u8]);
        update.extend([0xee; 4]);
    }
    stream.extend(update);
    let messages = read(&[&stream]).unwrap();
    let [Message::Drain(true), Message::Update(update)] = messages.as_slice() else { panic!("{messages:?}") };
    let seen: Vec<_> = update.records.iter().map(|r| (r.prefix.to_string(), r.load.0, r.capacity)).collect();
    assert_eq!(seen, [("::1/128".into(), 5, 1), ("::2/128".into(), 5, 2)]);
    // A kind of tomorrow in a refusal.
    assert_eq!(
        Message::parse(67, &[77, 1, b'x']),
        Ok(Some(Message::Refusal(Refusal { reason: None, text: "x".into() })))
    );
}

#[test]
fn what_is_beyond_the_limits_is_refused_by_its_header() {
    let long = |kind: u8, length: usize| {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        read(&[&[kind, a, b, c]])
    };
    for (kind, most) in [(UPDATE, UPDATE_MAX), (HELLO, BODY_MAX), (200, BODY_MAX)] {
        assert_eq!(long(kind, most), Ok(vec![]));
        assert_eq!(long(kind, most + 1), Err(WireError::Long { kind, length: most + 1 }));
    }
    // More records than there are bytes for: no room is made for them.
    let mut update = vec![0; 16];
    update.extend([0, 36, 0, 1, 0, 0]);
    assert_eq!(Message::parse(UPDATE, &update), Err(WireError::Short));
    update[19] = 0xff;
    assert!(matches!(Message::parse(UPDATE, &update), Err(WireError::Value { what: "number of records", .. })));
}

#[test]
fn values_without_a_meaning_are_refused() {
    let record = |change: (usize, u8)| {
        let mut update = vec![0; 22];
        (update[17], update[21]) = (36, 1);
        let mut record = [0; 36];
        record[..6].copy_from_slice(&[4, 24, 192, 0, 2, 0]);
        (record[19], record[23], record[24]) = (6, 80, 1);
        record[change.0] = change.1;
        update.extend(record);
        Message::parse(UPDATE, &update)
    };
    assert!(record((0, 4)).is_ok());
    // Family, length, bits behind the prefix and behind the address, protocol, ports, state.
    for change in [(0, 5), (1, 33), (5, 1), (10, 1), (18, 2), (20, 1), (24, 0), (24, 4)] {
        assert!(matches!(record(change), Err(WireError::Value { .. })), "{change:?}");
    }
    assert_eq!(Message::parse(GOODBYE, &[1, 7]), Err(WireError::Text));
    assert_eq!(Message::parse(GOODBYE, &[1, 0xff]), Err(WireError::Text));
    assert_eq!(Message::parse(DRAIN, &[2]), Err(WireError::Value { what: "drain", value: 2 }));
}

#[test]
fn texts_are_cut_where_a_character_ends() {
    let Message::Goodbye(text) = &read(&[&Message::Goodbye("ß\n".repeat(200)).to_bytes()]).unwrap()[0] else {
        panic!()
    };
    assert_eq!(*text, "ß ".repeat(85));
}

#[test]
fn loads_are_ratios() {
    for (ratio, load) in [(0.0, 0), (0.5, 500_000), (1.0, 1_000_000), (-1.0, 0), (1e9, u32::MAX), (f64::NAN, u32::MAX)]
    {
        assert_eq!(Load::from_ratio(ratio), Load(load), "{ratio}");
    }
    assert_eq!(Load(250_000).ratio(), 0.25);
}
