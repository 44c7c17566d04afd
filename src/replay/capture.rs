//! Capture files: one into several by flow, several into one by time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use pcap_file::pcap::{PcapHeader, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};
use siphasher::sip::SipHasher13;

use crate::packet::parse::{Fragment, Frame, Parsed, parse};
use crate::packet::{icmp, protocol, quote};
use crate::service::selection::Granularity;

/// Longest frame that is replayed, in bytes: what one packet buffer can be made to hold.
pub const FRAME_BYTES_MAX: usize = 65_407;

/// First bytes of a pcapng file: the type of its section header block.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It cannot be opened or read.
    #[error("{}: {source}; give the path of a readable pcap or pcapng file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no capture.
    #[error("{}: not a capture ({detail}); give a pcap or pcapng file", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What its first bytes lack.
        detail: String,
    },
    /// Its frames are not Ethernet.
    #[error("{}: link type is {link:?}; only captures of Ethernet interfaces can be replayed", path.display())]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type.
        link: DataLink,
    },
    /// It ends in the middle of a record, or a record's header lies.
    #[error("{}: cut off or damaged after record {records} ({detail}); repair it with `editcap IN OUT`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Whole records before the damage.
        records: u64,
        /// What is wrong.
        detail: String,
    },
    /// A frame is longer than a packet buffer can be.
    #[error(
        "{}: frame {record} has {bytes} bytes, at most {FRAME_BYTES_MAX} can be replayed; leave it out with \
         `editcap IN OUT {record}`", path.display()
    )]
    FrameTooLong {
        /// The file.
        path: PathBuf,
        /// The frame's number, from 1.
        record: u64,
        /// Its length.
        bytes: usize,
    },
    /// It has no records.
    #[error("{}: holds no packets; record some with `tcpdump -w FILE`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file of the run cannot be written.
    #[error("{}: {source}; choose a place that can be written to", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A signal came.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

/// A record: nanoseconds since 1970, and the bytes that were captured.
struct Record {
    time_ns: u64,
    bytes: Vec<u8>,
}

/// Reads classic pcap and pcapng alike.
enum Reader {
    Classic(PcapReader<BufReader<File>>),
    NextGeneration(PcapNgReader<BufReader<File>>),
}

/// A capture being read; remembers where it is for error messages.
struct Records {
    path: PathBuf,
    reader: Reader,
    read: u64,
}

impl Records {
    fn open(path: &Path) -> Result<Records, CaptureError> {
        let unreadable = |source| CaptureError::Unreadable { path: path.to_owned(), source };
        let not_a_capture =
            |error: PcapError| CaptureError::NotACapture { path: path.to_owned(), detail: error.to_string() };
        if path.is_dir() {
            return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let reader = if file.fill_buf().map_err(unreadable)?.starts_with(&PCAPNG_MAGIC) {
            Reader::NextGeneration(PcapNgReader::new(file).map_err(not_a_capture)?)
        } else {
            let reader = PcapReader::new(file).map_err(not_a_capture)?;
            check_link(path, reader.header().datalink)?;
            Reader::Classic(reader)
        };
        Ok(Records { path: path.to_owned(), reader, read: 0 })
    }

    fn next(&mut self) -> Result<Option<Record>, CaptureError> {
        let record = match &mut self.reader {
            Reader::Classic(reader) => {
                let unit_ns = if reader.header().ts_resolution == TsResolution::NanoSecond { 1 } else { 1_000 };
                // The raw record: a capture whose frames were cut when it was made is not damaged.
                let record = |packet: RawPcapPacket<'_>| Record {
                    time_ns: u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit_ns,
                    bytes: packet.data.into_owned(),
                };
                reader.next_raw_packet().transpose().map(|packet| packet.map(record))
            }
            Reader::NextGeneration(reader) => next_generation(reader, &self.path)?,
        };
        match record {
            Ok(record) => {
                self.read += u64::from(record.is_some());
                Ok(record)
            }
            Err(error) => {
                Err(CaptureError::Damaged { path: self.path.clone(), records: self.read, detail: error.to_string() })
            }
        }
    }
}

/// Classic pcap keeps the length of a frame check sequence in the upper bits of the link type.
fn check_link(path: &Path, link: DataLink) -> Result<(), CaptureError> {
    if DataLink::from(u32::from(link) & 0xffff) == DataLink::ETHERNET {
        return Ok(());
    }
    Err(CaptureError::LinkType { path: path.to_owned(), link })
}

/// The next packet of a pcapng file, over blocks that are not packets.
fn next_generation(
    reader: &mut PcapNgReader<BufReader<File>>,
    path: &Path,
) -> Result<Result<Option<Record>, PcapError>, CaptureError> {
    loop {
        let (number, ticks, bytes) = match reader.next_block() {
            None => return Ok(Ok(None)),
            Some(Err(error)) => return Ok(Err(error)),
            // The library hands the time stamp out as nanoseconds, whatever its unit.
            Some(Ok(Block::EnhancedPacket(packet))) => {
                (packet.interface_id, packet.timestamp.as_nanos() as u64, packet.data.into_owned())
            }
            Some(Ok(Block::SimplePacket(packet))) => (0, 0, packet.data.into_owned()),
            Some(Ok(_)) => continue,
        };
        let Some(interface) = reader.interfaces().get(number as usize) else {
            return Ok(Err(PcapError::InvalidInterfaceId(number)));
        };
        check_link(path, interface.linktype)?;
        // Draft-ietf-opsawg-pcapng, if_tsresol: a power of ten, or of two with the top bit; microseconds by default.
        let (mut resolution, mut offset_s) = (6, 0);
        for option in &interface.options {
            match option {
                InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
                InterfaceDescriptionOption::IfTsOffset(value) => offset_s = *value,
                _ => {}
            }
        }
        let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
        let ticks_per_second = base.saturating_pow(u32::from(resolution & 0x7f));
        let time_ns = u128::from(ticks) * 1_000_000_000 / ticks_per_second + u128::from(offset_s) * 1_000_000_000;
        return Ok(Ok(Some(Record { time_ns: u64::try_from(time_ns).unwrap_or(u64::MAX), bytes })));
    }
}

/// A capture that was split.
///
/// In its files the time stamp of a record is the record's number, in microseconds: that is what the pcap device carries
/// without loss, and `times_ns` says when it really was.
#[derive(Clone, Debug)]
pub struct Split {
    /// One file for each worker, some perhaps without records.
    pub files: Vec<PathBuf>,
    /// Time of each record of each file, in nanoseconds since 1970.
    pub times_ns: Vec<Vec<u64>>,
    /// The earliest of them.
    pub start_ns: u64,
    /// Time from the earliest to the latest.
    pub span_ns: u64,
    /// Length of the longest frame, in bytes.
    pub frame_bytes: usize,
}

impl Split {
    /// Number of records.
    pub fn records(&self) -> u64 {
        self.times_ns.iter().map(|times| times.len() as u64).sum()
    }
}

/// Splits `capture` into one file in `directory` for each of `workers`, so that the packets of a flow of this granularity
/// stay together and in order. Fragments go with their first one, where that came before them.
pub fn split(
    capture: &Path,
    directory: &Path,
    workers: u16,
    flow: Granularity,
    stop: &AtomicBool,
) -> Result<Split, CaptureError> {
    let mut records = Records::open(capture)?;
    let files: Vec<PathBuf> = (0..workers).map(|worker| directory.join(format!("in-{worker}.pcap"))).collect();
    let mut writers = files.iter().map(|file| Writer::create(file)).collect::<Result<Vec<_>, _>>()?;
    let mut times_ns: Vec<Vec<u64>> = vec![Vec::new(); files.len()];
    let mut splitter = Splitter { workers, flow, datagrams: HashMap::new() };
    let mut frame_bytes = 0;
    while let Some(Record { time_ns, bytes }) = records.next()? {
        if stop.load(Ordering::Relaxed) {
            return Err(CaptureError::Interrupted);
        }
        if bytes.len() > FRAME_BYTES_MAX {
            let (path, record) = (capture.to_owned(), records.read);
            return Err(CaptureError::FrameTooLong { path, record, bytes: bytes.len() });
        }
        frame_bytes = frame_bytes.max(bytes.len());
        let worker = splitter.worker(&bytes);
        writers[worker].write(times_ns[worker].len() as u64 * 1_000, &bytes)?;
        times_ns[worker].push(time_ns);
    }
    let all = times_ns.iter().flatten().copied();
    let (Some(start_ns), Some(end_ns)) = (all.clone().min(), all.max()) else {
        return Err(CaptureError::Empty { path: capture.to_owned() });
    };
    writers.into_iter().try_for_each(|writer| writer.finish().map(drop))?;
    Ok(Split { files, times_ns, start_ns, span_ns: end_ns - start_ns, frame_bytes })
}

/// Does what a NIC's receive-side scaling does, and keeps fragments together, and ICMP errors with the flow that they quote.
struct Splitter {
    workers: u16,
    flow: Granularity,
    /// Worker of a datagram's first fragment, by addresses, protocol and identification.
    datagrams: HashMap<(IpAddr, IpAddr, u8, u32), usize>,
}

/// The packet that an ICMP error quotes: from where, to where, and the rest.
fn quoted(frame: &[u8], parsed: &Parsed) -> Option<(IpAddr, IpAddr, Parsed)> {
    if !matches!(parsed.protocol, protocol::ICMP | protocol::ICMPV6) {
        return None;
    }
    let quote = icmp::quoted(parsed.family, frame.get(usize::from(parsed.l4_offset)..)?)?;
    let quoted = quote::read(parsed.family, quote)?;
    Some((quoted.source(quote), quoted.destination(quote), quoted))
}

impl Splitter {
    /// The worker of a flow: addresses, then protocol and ports.
    fn of_flow(&self, source: IpAddr, destination: IpAddr, [protocol, from, to]: [u16; 3]) -> usize {
        let what = match self.flow {
            Granularity::FiveTuple => format!("{source} {destination} {protocol} {from} {to}"),
            Granularity::Source { v4, v6 } => {
                let prefix = if source.is_ipv4() { v4 } else { v6 };
                IpNet::new(source, prefix).map_or_else(|_| source.to_string(), |client| client.trunc().to_string())
            }
        };
        // The key is fixed: the same capture is split in the same way on every run.
        (SipHasher13::new().hash(what.as_bytes()) % u64::from(self.workers)) as usize
    }

    fn worker(&mut self, frame: &[u8]) -> usize {
        let Ok(Frame::Ip(parsed)) = parse(frame, frame.len()) else { return 0 };
        let (source, destination) = (parsed.source(frame), parsed.destination(frame));
        if let Some((server, client, quoted)) = quoted(frame, &parsed) {
            return self.of_flow(client, server, [quoted.protocol.into(), quoted.dst_port(), quoted.src_port()]);
        }
        let worker = self.of_flow(source, destination, [parsed.protocol.into(), parsed.src_port(), parsed.dst_port()]);
        // Only the first fragment of an IPv6 datagram tells the transport protocol, and identifications need none there.
        let protocol = if source.is_ipv4() { parsed.protocol } else { 0 };
        match parsed.fragment {
            Fragment::None => worker,
            Fragment::First { id } => {
                self.datagrams.insert((source, destination, protocol, id), worker);
                worker
            }
            Fragment::Later { id } => {
                self.datagrams.get(&(source, destination, protocol, id)).copied().unwrap_or(worker)
            }
        }
    }
}

/// One file of the run, and the times of its records in order.
pub struct Part {
    /// The file, as the pcap device wrote it.
    pub file: PathBuf,
    /// When each of its records stood in the capture, in nanoseconds since 1970.
    pub times_ns: Vec<u64>,
}

/// Merges `parts` by time into `output`, which errors call `path`, and returns how many records that were. Records of
/// one part keep their order.
pub fn merge(parts: &[Part], path: &Path, output: &mut File, stop: &AtomicBool) -> Result<u64, CaptureError> {
    let mut writer = Writer::over(path.to_owned(), BufWriter::new(output))?;
    let mut sources = Vec::new();
    for part in parts {
        sources.push((Records::open(&part.file)?, part.times_ns.iter().copied()));
    }
    let mut heads: Vec<Option<u64>> = sources.iter_mut().map(|(_, times)| times.next()).collect();
    // Few parts: comparing their heads costs less than keeping a heap of them.
    while let Some((index, at)) =
        heads.iter().enumerate().filter_map(|(index, at)| at.map(|at| (index, at))).min_by_key(|(_, at)| *at)
    {
        if stop.load(Ordering::Relaxed) {
            return Err(CaptureError::Interrupted);
        }
        let (records, times) = &mut sources[index];
        let Some(record) = records.next()? else { break };
        writer.write(at, &record.bytes)?;
        // A part's clock never goes back, so neither may the order of its records.
        heads[index] = times.next().map(|next| next.max(at));
    }
    writer.finish()
}

/// Writes classic pcap with nanosecond time stamps.
struct Writer<W: Write> {
    path: PathBuf,
    writer: PcapWriter<W>,
    records: u64,
}

impl Writer<BufWriter<File>> {
    fn create(path: &Path) -> Result<Self, CaptureError> {
        let file =
            fs::File::create(path).map_err(|source| CaptureError::Unwritable { path: path.to_owned(), source })?;
        Writer::over(path.to_owned(), BufWriter::new(file))
    }
}

impl<W: Write> Writer<W> {
    fn over(path: PathBuf, writer: W) -> Result<Writer<W>, CaptureError> {
        let header = PcapHeader {
            version_major: 2,
            version_minor: 4,
            ts_correction: 0,
            ts_accuracy: 0,
            snaplen: u32::from(u16::MAX),
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
        };
        match PcapWriter::with_header(writer, header) {
            Ok(writer) => Ok(Writer { path, writer, records: 0 }),
            Err(error) => Err(unwritable(path, error)),
        }
    }

    /// Adds a record; times that the format cannot say become the last that it can.
    fn write(&mut self, time_ns: u64, bytes: &[u8]) -> Result<(), CaptureError> {
        let packet = RawPcapPacket {
            ts_sec: u32::try_from(time_ns / 1_000_000_000).unwrap_or(u32::MAX),
            ts_frac: (time_ns % 1_000_000_000) as u32,
            incl_len: bytes.len() as u32,
            orig_len: bytes.len() as u32,
            data: bytes.into(),
        };
        self.writer.write_raw_packet(&packet).map_err(|error| unwritable(self.path.clone(), error))?;
        self.records += 1;
        Ok(())
    }

    /// Writes what is left and returns the number of records.
    fn finish(self) -> Result<u64, CaptureError> {
        let Writer { path, writer, records } = self;
        writer.into_writer().flush().map_err(|source| CaptureError::Unwritable { path, source })?;
        Ok(records)
    }
}

fn unwritable(path: PathBuf, error: PcapError) -> CaptureError {
    let source = match error {
        PcapError::IoError(source) => source,
        other => io::Error::other(other.to_string()),
    };
    CaptureError::Unwritable { path, source }
}
