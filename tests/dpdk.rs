//! The DPDK room on virtual devices: what is owned, what comes back, and what is said when something is wrong.
//!
//! The EAL starts once per process, so these tests hold together in one process (cargo test) and each in its own
//! (nextest). Names of pools and devices differ from test to test.
#![cfg(feature = "dpdk")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arrayvec::ArrayVec;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};
use proptest::prelude::*;
use slr::dpdk::lcore::{self, LcoreError};
use slr::dpdk::{
    Eal, EalError, EalOptions, HugeSlice, Hugepages, Mbuf, Pages, Pool, PoolError, Port, PortError, PortOptions,
    RxQueue, TxQueue, tsc,
};
use slr::packet::buffer::PacketBuffer;

type Burst = ArrayVec<Mbuf, 32>;

fn options() -> EalOptions {
    let cpus = cpus_allowed();
    // Four workers on the first two CPUs that this process may use.
    let lcores = [0, 1, 0, 1].map(|index| cpus[index % cpus.len().min(2)]);
    EalOptions {
        hugepages: Hugepages::Never,
        memory_mib: 128,
        file_prefix: format!("slr-test-{}", std::process::id()),
        lcores: lcores.to_vec(),
        devices: Vec::new(),
        verbose: false,
    }
}

fn eal() -> &'static Eal {
    static EAL: OnceLock<&'static Eal> = OnceLock::new();
    EAL.get_or_init(|| Eal::init(&options()).expect("EAL"))
}

fn cpu_list() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("list");
    list.trim().to_owned()
}

fn cpus_allowed() -> Vec<u16> {
    let number = |text: &str| text.parse::<u16>().expect("number");
    let ranges = cpu_list();
    let ranges = ranges.split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
    ranges.flat_map(|(first, last)| number(first)..=number(last)).collect()
}

/// Where DPDK makes a directory for root.
fn runtime_dir() -> PathBuf {
    Path::new("/var/run/dpdk").join(options().file_prefix)
}

/// The lcores, for one test at a time.
fn lcores() -> MutexGuard<'static, ()> {
    static LCORES: Mutex<()> = Mutex::new(());
    LCORES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pool(name: &str, buffers: u32, data_room: u16) -> Pool {
    eal();
    Pool::new(name, buffers, data_room).expect("pool")
}

fn port_options(queues: u16) -> PortOptions {
    PortOptions {
        rx_queues: queues,
        tx_queues: queues,
        rx_descriptors: 256,
        tx_descriptors: 256,
        mtu: 1500,
        promiscuous: true,
        all_multicast: false,
    }
}

fn open(device: &str, options: &PortOptions, pool: &Pool) -> (Port, RxQueue, TxQueue) {
    let (port, mut rx, mut tx) = Port::open(device, options, pool).expect("port");
    port.start().expect("start");
    (port, rx.remove(0), tx.remove(0))
}

fn frame_of(packet: &Mbuf) -> Vec<u8> {
    packet.segments().flatten().copied().collect()
}

fn numbered(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + seed * 13 + index / 251) as u8).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Prepend(usize),
    TrimFront(usize),
    Truncate(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (0..200usize).prop_map(Change::Prepend),
        (0..300usize).prop_map(Change::TrimFront),
        (0..900usize).prop_map(Change::Truncate),
    ];
    prop::collection::vec(change, 0..12)
}

/// A packet as a vector, and how its bytes lie in segments.
struct Oracle {
    frame: Vec<u8>,
    headroom: usize,
    first_segment: usize,
}

impl Oracle {
    /// Whether the change is possible, in which case it is made; added bytes are `0xaa`.
    fn apply(&mut self, change: &Change) -> bool {
        match *change {
            Change::Prepend(count) => {
                let fits = count <= self.headroom;
                if fits {
                    self.frame.splice(0..0, vec![0xaa; count]);
                    self.headroom -= count;
                    self.first_segment += count;
                }
                fits
            }
            Change::TrimFront(count) => {
                let fits = count <= self.first_segment;
                if fits {
                    self.frame.drain(..count);
                    self.headroom += count;
                    self.first_segment -= count;
                }
                fits
            }
            Change::Truncate(len) => {
                self.frame.truncate(len);
                self.first_segment = self.first_segment.min(self.frame.len());
                true
            }
        }
    }
}

fn apply(packet: &mut Mbuf, change: &Change) -> bool {
    match *change {
        Change::Prepend(count) => packet.prepend(count).map(|head| head[..count].fill(0xaa)).is_some(),
        Change::TrimFront(count) => packet.trim_front(count),
        Change::Truncate(len) => {
            packet.truncate(len);
            true
        }
    }
}

#[test]
fn a_packet_in_segments_changes_like_a_vector() {
    // 64 buffers are too few for a cache, so `available` counts them all whichever thread frees.
    let pool = pool("segments", 64, 256);
    proptest!(|(len in 0..1000usize, changes in changes())| {
        let frame = numbered(len, 1);
        let mut packet = pool.alloc_from(&frame).expect("buffers");
        prop_assert_eq!(pool.in_use() as usize, len.div_ceil(256).max(1));
        let mut oracle = Oracle { first_segment: len.min(256), headroom: packet.headroom(), frame };
        for change in &changes {
            prop_assert_eq!(apply(&mut packet, change), oracle.apply(change), "{:?}", change);
            prop_assert_eq!(&frame_of(&packet), &oracle.frame, "{:?}", change);
            prop_assert_eq!(packet.frame_len(), oracle.frame.len());
            prop_assert_eq!(packet.head(), &oracle.frame[..oracle.first_segment]);
            prop_assert_eq!(packet.headroom(), oracle.headroom);
            prop_assert_eq!(pool.in_use() as usize, packet.segments().count());
        }
        drop(packet);
        prop_assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_piece_holds_its_header_and_its_part_of_a_packet_in_segments() {
    let pool = pool("pieces", 64, 256);
    proptest!(|(len in 0..1000usize, header in 0..300usize, from in 0..1100usize, count in 0..1100usize)| {
        let (frame, header) = (numbered(len, 1), numbered(header, 2));
        let packet = pool.alloc_from(&frame).expect("buffers");
        let piece = pool.alloc_piece(&header, &packet, from..from + count);
        let expected = frame.get(from..from + count).map(|part| [&header, part].concat());
        prop_assert_eq!(piece.as_ref().map(frame_of), expected);
        prop_assert!(piece.as_ref().is_none_or(|piece| piece.segments().count() <= piece.frame_len() / 256 + 1));
        drop((piece, packet));
        prop_assert_eq!(pool.in_use(), 0);
    });
    let packet = pool.alloc_from(&numbered(100, 1)).expect("buffers");
    let others: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert!(pool.alloc_piece(b"header", &packet, 0..100).is_none());
    assert_eq!(pool.in_use() as usize, others.len() + 1);
}

#[test]
fn an_empty_pool_gives_nothing_and_keeps_nothing_of_a_packet_that_did_not_fit() {
    let pool = pool("empty", 4, 256);
    let three = pool.alloc_from(&numbered(700, 1)).expect("three buffers");
    assert!(pool.alloc_from(&numbered(300, 2)).is_none(), "two buffers where one is left");
    assert_eq!(pool.in_use(), 3);
    let last = pool.alloc().expect("one buffer");
    assert_eq!((last.frame_len(), last.head()), (0, &[][..]));
    assert!(pool.alloc().is_none());
    drop((three, last));
    assert_eq!((pool.in_use(), pool.available(), pool.size()), (0, 4, 4));
}

#[test]
fn a_packet_outlives_the_last_handle_of_its_pool() {
    let pool = pool("outlived", 64, 256);
    let packet = pool.alloc_from(b"still here").expect("buffer");
    drop(pool);
    assert_eq!(packet.head(), b"still here");
    drop(packet);
    let again = Pool::new("outlived", 64, 256).map(|_| ()).expect_err("the pool was kept, and its name with it");
    assert!(again.to_string().contains("File exists"), "{again}");
}

#[test]
fn a_freed_pool_gives_its_name_and_memory_back() {
    eal();
    for round in 0..20 {
        // 20 of them together are more than the memory.
        let pool = Pool::new("again", 8192, 2048);
        assert!(pool.is_ok(), "round {round}: {:?}", pool.err());
    }
}

#[test]
fn pools_that_cannot_be_are_refused_with_the_reason() {
    let kept = pool("taken", 64, 256);
    let error = |name: &str, buffers, data_room| match Pool::new(name, buffers, data_room) {
        Ok(_) => panic!("{name} was made"),
        Err(error) => error,
    };
    assert!(matches!(error("none", 0, 2048), PoolError::Size { buffers: 0, .. }));
    assert!(matches!(error("small", 64, 63), PoolError::Size { data_room: 63, .. }));
    assert!(matches!(error("large", 64, u16::MAX), PoolError::Size { max: 65407, .. }));
    for (name, buffers, text) in [
        ("taken", 64, "File exists"),
        ("a-name-that-is-longer-than-any-pool-may-have", 64, "File name too long"),
        ("vast", 1 << 24, "(about 38912 MiB) cannot be made: Cannot allocate memory"),
    ] {
        let error = error(name, buffers, 2048).to_string();
        assert!(error.contains(name) && error.contains(text), "{error}");
    }
    drop(kept);
}

#[test]
fn what_a_full_ring_does_not_take_is_freed_once() {
    let pool = pool("full-ring", 2048, 2048);
    let (port, mut rx, mut tx) = open("net_ring_full0", &port_options(1), &pool);
    assert_eq!(port.driver(), "net_ring");
    let (mut sent, mut unsent) = (0, 0);
    for number in 0..40usize {
        let mut burst: Burst =
            (0..32).map(|at| pool.alloc_from(&numbered(60, number * 32 + at)).expect("buffer")).collect();
        let result = tx.burst(&mut burst);
        assert!(burst.is_empty());
        assert_eq!(result.sent + result.unsent, 32);
        sent += result.sent;
        unsent += result.unsent;
    }
    // A ring of 1024 holds one less.
    assert_eq!((sent, unsent), (1023, 40 * 32 - 1023));
    assert_eq!(pool.in_use(), 1023, "the unsent are back, the sent are not");

    let mut burst = Burst::new();
    let mut received = 0;
    while rx.burst(&mut burst) > 0 {
        for packet in burst.drain(..) {
            assert_eq!(packet.head(), numbered(60, received), "packet {received}");
            assert_eq!(packet.timestamp(), None, "a ring knows no time");
            received += 1;
        }
        if received >= 512 {
            break;
        }
    }
    assert_eq!((received, pool.in_use()), (512, 511));
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets), (512, 1023));
    drop((rx, tx));
    port.close().expect("closes");
    assert_eq!(pool.in_use(), 0, "closing frees what lies in the ring");
}

#[test]
fn a_burst_fills_only_the_free_part() {
    let pool = pool("partial", 256, 256);
    let (port, mut rx, tx) = open("net_null_partial0,size=100", &port_options(1), &pool);
    let mut burst = Burst::new();
    burst.push(pool.alloc_from(b"first").expect("buffer"));
    assert_eq!(rx.burst(&mut burst), 31);
    assert_eq!((burst[0].head(), burst.len()), (&b"first"[..], 32));
    assert!(burst[1..].iter().all(|packet| packet.frame_len() == 100));
    assert_eq!(rx.burst(&mut burst), 0, "no room");
    burst.clear();
    drop((port, rx, tx));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn queues_carry_nothing_before_the_start() {
    let pool = pool("unstarted", 64, 256);
    let (port, mut rx, mut tx) = Port::open("net_null_unstarted0", &port_options(1), &pool).expect("port");
    let mut burst = Burst::new();
    assert_eq!(rx[0].burst(&mut burst), 0);
    burst.push(pool.alloc().expect("buffer"));
    let result = tx[0].burst(&mut burst);
    assert_eq!((result.sent, result.unsent, burst.len(), pool.in_use()), (0, 1, 0, 0));
    port.start().expect("start");
    assert_eq!(rx[0].burst(&mut burst), 32);
}

#[test]
fn a_port_closes_with_the_last_of_its_queues() {
    let pool = pool("close", 256, 256);
    let (port, rx, tx) = open("net_null_close0", &port_options(1), &pool);
    drop(tx);
    assert_eq!(port.close(), Err(PortError::QueuesInUse("net_null_close0".into())));
    let taken = Port::open("net_null_close0", &port_options(1), &pool).map(|_| ());
    assert_eq!(taken, Err(PortError::AlreadyOpen("net_null_close0".into())));
    drop(rx);
    // The device is unplugged, so its name is free.
    let (port, rx, tx) = open("net_null_close0", &port_options(1), &pool);
    drop((rx, tx));
    assert_eq!(port.close(), Ok(()));
}

/// Writes `frames` with the times 1, 2, 3 s and as many microseconds after 2001-09-09.
fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let header = PcapHeader {
        snaplen: 65535,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::MicroSecond,
        endianness: Endianness::native(),
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(File::create(path).expect("file"), header).expect("capture");
    for (number, frame) in frames.iter().enumerate() {
        let time = arrival(number);
        writer.write_packet(&PcapPacket::new(time, frame.len() as u32, frame)).expect("packet");
    }
}

fn arrival(number: usize) -> Duration {
    Duration::new(1_000_000_000 + number as u64, number as u32 * 1000)
}

#[test]
fn a_capture_passes_through_with_bytes_and_times_and_nothing_stays_out() {
    let directory = tempfile::tempdir().expect("directory");
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcap"));
    // From the least Ethernet frame to a jumbo, which takes segments.
    let frames: Vec<Vec<u8>> =
        [60, 61, 1514, 2048, 2049, 9000, 64].iter().enumerate().map(|(n, &len)| numbered(len, n)).collect();
    write_capture(&input, &frames);

    let pool = pool("capture", 512, 2048);
    let device = format!("net_pcap_through0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let (port, mut rx, mut tx) = open(&device, &PortOptions { mtu: 9000, ..port_options(1) }, &pool);
    assert_eq!((port.driver().as_str(), port.mtu(), port.link().up), ("net_pcap", 9000, true));
    let mut burst = Burst::new();
    while rx.burst(&mut burst) > 0 {}
    assert_eq!(burst.len(), frames.len());
    for (number, packet) in burst.iter().enumerate() {
        assert_eq!(frame_of(packet), frames[number], "frame {number}");
        assert_eq!(packet.segments().count(), frames[number].len().div_ceil(2048), "frame {number}");
        assert_eq!(packet.timestamp().map(Duration::from_nanos), Some(arrival(number)), "frame {number}");
    }
    let result = tx.burst(&mut burst);
    assert_eq!((result.sent, result.unsent), (frames.len(), 0));
    assert_eq!(pool.in_use(), 0);
    let bytes = frames.iter().map(Vec::len).sum::<usize>() as u64;
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.rx_bytes, stats.tx_packets, stats.tx_bytes), (7, bytes, 7, bytes));
    drop((rx, tx));
    port.close().expect("closes");

    let mut reader = PcapReader::new(File::open(&output).expect("output")).expect("capture");
    let mut written = Vec::new();
    while let Some(packet) = reader.next_packet() {
        written.push(packet.expect("whole packet").data.into_owned());
    }
    assert_eq!(written, frames);
}

#[test]
fn each_capture_is_a_queue() {
    let directory = tempfile::tempdir().expect("directory");
    let mut device = "net_pcap_queues0".to_owned();
    for queue in 0..3 {
        let path = directory.path().join(format!("{queue}.pcap"));
        write_capture(&path, &[numbered(60 + queue, queue)]);
        device.push_str(&format!(",rx_pcap={}", path.display()));
    }
    let pool = pool("queues", 64, 2048);
    let (port, mut rx, _tx) = Port::open(&device, &port_options(3), &pool).expect("port");
    port.start().expect("start");
    for (number, queue) in rx.iter_mut().enumerate() {
        let mut burst = Burst::new();
        assert_eq!((queue.index() as usize, queue.burst(&mut burst)), (number, 1));
        assert_eq!(burst[0].head(), numbered(60 + number, number));
    }
}

#[test]
fn ports_that_cannot_be_are_refused_with_what_is_wrong() {
    let pool = pool("refused", 256, 2048);
    let error = |device: &str, options: &PortOptions| match Port::open(device, options, &pool) {
        Ok(_) => panic!("{device} opened"),
        Err(error) => error.to_string(),
    };
    let one = port_options(1);
    for (device, options, expected) in [
        ("", &one, "`` names no device"),
        ("net_foo0", &one, "DPDK has no driver of that name"),
        ("net_af_packet7,iface=nosuch0", &one, "there is no network interface `nosuch0`"),
        ("0000:ff:1f.7", &one, "there is no such PCI device"),
        ("net_pcap_missing0,rx_pcap=/nonexistent/in.pcap", &one, "/nonexistent/in.pcap"),
        ("net_null_key0,nosuchkey=1", &one, "`net_null_key0,nosuchkey=1`"),
        ("net_ring_many0", &port_options(17), "has 16 receive queues, and 17 workers need one each"),
        ("net_null_mtu0", &PortOptions { mtu: 20, ..one.clone() }, "an MTU of 20: choose one from 46"),
    ] {
        let text = error(device, options);
        assert!(text.contains(expected), "{device}: {text}");
        eprintln!("{text}");
    }
    // What failed after it was plugged is unplugged again.
    let (port, ..) = open("net_ring_many0", &port_options(1), &pool);
    drop(port);
}

#[test]
fn the_environment_starts_once_and_leaves_the_calling_thread_its_cpus() {
    let before = cpu_list();
    let eal = eal();
    assert_eq!(cpu_list(), before);
    assert!(matches!(eal.pages(), Pages::Ordinary { .. }));
    assert_eq!(Eal::init(&options()).map(|_| ()), Err(EalError::AlreadyStarted));
    assert!(!runtime_dir().exists());
    assert!(tsc::hz() > 100_000_000);
    let start = tsc::now();
    std::thread::sleep(Duration::from_millis(20));
    let millis = (tsc::now() - start) * 1000 / tsc::hz();
    assert!((20..2000).contains(&millis), "{millis} ms");
}

#[test]
fn impossible_options_are_refused_before_anything_starts() {
    let vast = EalOptions { hugepages: Hugepages::Require, memory_mib: u32::MAX, ..options() };
    assert!(matches!(Eal::init(&vast), Err(EalError::Hugepages { pages: 0x8000_0000, .. })));
    let far = EalOptions { lcores: vec![u16::MAX], ..options() };
    assert!(matches!(Eal::init(&far), Err(EalError::Cpu { cpu: u16::MAX, .. })));
    // It can still start.
    assert!(matches!(eal().pages(), Pages::Ordinary { .. }));
}

#[test]
fn four_workers_share_two_cpus_and_return_what_they_made() {
    eal();
    let _lcores = lcores();
    let (tell, told) = channel();
    let handles: Vec<_> = (0..4u16)
        .map(|worker| {
            let tell = tell.clone();
            let (go, wait) = channel::<()>();
            let handle = lcore::launch(worker, move || {
                tell.send(worker).expect("the test listens");
                wait.recv().expect("the test tells when");
                (worker * 10, cpu_list())
            });
            (handle.expect("launch"), go)
        })
        .collect();
    let mut running: Vec<u16> =
        (0..4).map(|_| told.recv_timeout(Duration::from_secs(20)).expect("all run at once")).collect();
    running.sort_unstable();
    assert_eq!(running, [0, 1, 2, 3]);
    assert_eq!(lcore::launch(2, || ()).map(|_| ()), Err(LcoreError::Busy { worker: 2 }));
    assert_eq!(lcore::launch(4, || ()).map(|_| ()), Err(LcoreError::NoSuchLcore { worker: 4 }));

    for (worker, (handle, go)) in handles.into_iter().enumerate() {
        go.send(()).expect("the worker waits");
        assert_eq!(handle.join(), Ok((worker as u16 * 10, options().lcores[worker].to_string())));
    }

    let panicked = lcore::launch(3, || -> () { panic!("on purpose: {}", 42) }).expect("launch").join();
    assert_eq!(panicked, Err(LcoreError::Panicked { worker: 3, message: "on purpose: 42".into() }));
    assert_eq!(lcore::launch(3, || "works again").expect("launch").join(), Ok("works again"));
}

#[test]
fn workers_hand_packets_around_and_every_buffer_comes_back() {
    // With caches on the lcores: buffers are allocated on one and freed on another.
    let pool = pool("handed", 4096, 256);
    let (port, mut rx, mut tx) = open("net_ring_handed0", &port_options(1), &pool);
    let source = pool.clone();
    let _lcores = lcores();
    let sender = lcore::launch(0, move || {
        let (mut sent, mut burst) = (0, Burst::new());
        while sent < 50_000 {
            burst.extend((0..32).map_while(|_| source.alloc_from(&numbered(60, 0))));
            let result = tx.burst(&mut burst);
            sent += result.sent;
            if result.unsent > 0 {
                std::thread::yield_now();
            }
        }
        sent
    });
    let receiver = lcore::launch(1, move || {
        let (mut received, mut burst) = (0, Burst::new());
        while received < 50_000 {
            received += rx.burst(&mut burst);
            burst.clear();
        }
        (received, rx)
    });
    let sent = sender.expect("launch").join().expect("sender");
    let (received, rx) = receiver.expect("launch").join().expect("receiver");
    assert!(received <= sent);
    drop((port, rx));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_huge_slice_is_zeroed_aligned_and_given_back() {
    eal();
    for round in 0..20 {
        // 20 of them together are more than the memory.
        let mut slice = HugeSlice::<u64>::new(2 << 20).unwrap_or_else(|| panic!("round {round}"));
        assert_eq!(slice.as_ptr() as usize % 64, 0);
        assert!(slice.iter().all(|&word| word == 0), "round {round}");
        slice.fill(u64::MAX);
    }
    assert!(HugeSlice::<u64>::new(1 << 40).is_none());
    assert!(HugeSlice::<u64>::new(usize::MAX).is_none());
    assert_eq!(HugeSlice::<u64>::new(0).as_deref(), Some(&[][..]));
}

/// Runs `body` in a process of its own, which is this test once more: it starts an EAL that is not the others'.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "SLR_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let program = std::env::current_exe().expect("path");
    let output = Command::new(program).args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().expect("run");
    let text = [output.stderr, output.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn cleanup_waits_for_everything_to_be_given_back() {
    alone("dpdk::cleanup_waits_for_everything_to_be_given_back", || {
        let eal = eal();
        let pool = Pool::new("cleanup", 64, 256).expect("pool");
        let (port, rx, tx) = open("net_null0", &port_options(1), &pool);
        let slice = HugeSlice::<u8>::new(1);
        assert_eq!(eal.cleanup(), Err(EalError::InUse { held: 3 }));
        drop((port, rx, tx, slice));
        assert_eq!(eal.cleanup(), Err(EalError::InUse { held: 1 }));
        drop(pool);
        let worker = lcore::launch(0, || ()).expect("launch");
        worker.join().expect("done");
        assert_eq!(eal.cleanup(), Ok(()));
        assert_eq!(eal.cleanup(), Ok(()), "a second time there is nothing to do");
        assert!(matches!(Pool::new("late", 64, 256), Err(PoolError::NotRunning(_))));
        assert!(HugeSlice::<u8>::new(1).is_none());
        assert_eq!(lcore::launch(0, || ()).map(|_| ()), Err(LcoreError::NotRunning { worker: 0 }));
        assert_eq!(Eal::init(&options()).map(|_| ()), Err(EalError::AlreadyStarted));
    });
}

#[test]
fn a_start_that_fails_says_what_dpdk_said() {
    alone("dpdk::a_start_that_fails_says_what_dpdk_said", || {
        let vast = EalOptions { memory_mib: 1 << 30, ..options() };
        let Err(EalError::Init { reason }) = Eal::init(&vast) else { panic!("it started") };
        assert!(reason.contains("memory"), "{reason}");
        assert!(!runtime_dir().exists());
        assert_eq!(Eal::init(&options()).map(|_| ()), Err(EalError::AlreadyStarted));
    });
}
