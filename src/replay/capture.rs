//! Capture files: one into several by flow, several into one by time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};
use siphasher::sip::SipHasher13;

use crate::packet::parse::{Fragment, Frame, parse};

/// Longest frame that is replayed: what one packet buffer can be made to hold.
pub const FRAME_BYTES_MAX: usize = 65_407;

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
}

/// A record: when, and which bytes.
struct Record {
    timestamp: Duration,
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
        if path.is_dir() {
            return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let open = || File::open(path).map(BufReader::new).map_err(unreadable);
        let reader = match PcapReader::new(open()?) {
            Ok(reader) => {
                let link = reader.header().datalink;
                if link != DataLink::ETHERNET {
                    return Err(CaptureError::LinkType { path: path.to_owned(), link });
                }
                Reader::Classic(reader)
            }
            Err(classic) => match PcapNgReader::new(open()?) {
                Ok(reader) => Reader::NextGeneration(reader),
                Err(_) => return Err(CaptureError::NotACapture { path: path.to_owned(), detail: classic.to_string() }),
            },
        };
        Ok(Records { path: path.to_owned(), reader, read: 0 })
    }

    fn next(&mut self) -> Result<Option<Record>, CaptureError> {
        let record = match &mut self.reader {
            Reader::Classic(reader) => reader.next_packet().transpose().map(|packet| {
                packet.map(|packet| Record { timestamp: packet.timestamp, bytes: packet.data.into_owned() })
            }),
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

/// The next packet of a pcapng file, over blocks that are not packets.
fn next_generation(
    reader: &mut PcapNgReader<BufReader<File>>,
    path: &Path,
) -> Result<Result<Option<Record>, PcapError>, CaptureError> {
    loop {
        let (interface, timestamp, bytes) = match reader.next_block() {
            None => return Ok(Ok(None)),
            Some(Err(error)) => return Ok(Err(error)),
            Some(Ok(Block::EnhancedPacket(packet))) => {
                (packet.interface_id, packet.timestamp, packet.data.into_owned())
            }
            Some(Ok(Block::SimplePacket(packet))) => (0, Duration::ZERO, packet.data.into_owned()),
            Some(Ok(_)) => continue,
        };
        let link = reader.interfaces().get(interface as usize).map(|interface| interface.linktype);
        return match link {
            Some(DataLink::ETHERNET) => Ok(Ok(Some(Record { timestamp, bytes }))),
            Some(link) => Err(CaptureError::LinkType { path: path.to_owned(), link }),
            None => Ok(Err(PcapError::InvalidInterfaceId(interface))),
        };
    }
}

/// A capture that was split.
#[derive(Clone, Debug)]
pub struct Split {
    /// One file for each worker, some perhaps without records.
    pub files: Vec<PathBuf>,
    /// Records in each file.
    pub records: Vec<u64>,
    /// Time stamp of the first record.
    pub start: Duration,
    /// Time from the first to the last record.
    pub span: Duration,
    /// Length of the longest frame, in bytes.
    pub frame_bytes: usize,
}

/// Splits `capture` into one file in `directory` for each of `workers`, so that the packets of a flow stay together and
/// in order. Fragments go with their first one, where that came before them.
pub fn split(capture: &Path, directory: &Path, workers: u16) -> Result<Split, CaptureError> {
    let mut records = Records::open(capture)?;
    let files: Vec<PathBuf> = (0..workers).map(|worker| directory.join(format!("in-{worker}.pcap"))).collect();
    let mut writers = files.iter().map(|file| Writer::create(file)).collect::<Result<Vec<_>, _>>()?;
    let mut splitter = Splitter { workers, datagrams: HashMap::new() };
    let (mut start, mut end, mut frame_bytes) = (Duration::MAX, Duration::ZERO, 0);
    while let Some(record) = records.next()? {
        if record.bytes.len() > FRAME_BYTES_MAX {
            let detail = format!("the next frame has {} bytes, at most {FRAME_BYTES_MAX} can be", record.bytes.len());
            return Err(CaptureError::Damaged { path: capture.to_owned(), records: records.read - 1, detail });
        }
        frame_bytes = frame_bytes.max(record.bytes.len());
        start = start.min(record.timestamp);
        end = end.max(record.timestamp);
        writers[splitter.worker(&record.bytes)].write(record.timestamp, &record.bytes)?;
    }
    if records.read == 0 {
        return Err(CaptureError::Empty { path: capture.to_owned() });
    }
    let records = writers.iter().map(|writer| writer.records).collect();
    writers.into_iter().try_for_each(Writer::finish)?;
    Ok(Split { files, records, start, span: end - start, frame_bytes })
}

/// Does what a NIC's receive-side scaling does, and keeps fragments together too.
struct Splitter {
    workers: u16,
    /// Worker of a datagram's first fragment.
    datagrams: HashMap<(IpAddr, IpAddr, u32), usize>,
}

impl Splitter {
    fn worker(&mut self, frame: &[u8]) -> usize {
        let Ok(Frame::Ip(parsed)) = parse(frame, frame.len()) else { return 0 };
        let (source, destination) = (parsed.source(frame), parsed.destination(frame));
        let tuple = (source, destination, parsed.protocol, parsed.src_port, parsed.dst_port);
        // The key is fixed: the same capture is split in the same way on every run.
        let worker = (SipHasher13::new().hash(format!("{tuple:?}").as_bytes()) % u64::from(self.workers)) as usize;
        match parsed.fragment {
            Fragment::None => worker,
            Fragment::First { id } => {
                self.datagrams.insert((source, destination, id), worker);
                worker
            }
            Fragment::Later { id } => self.datagrams.get(&(source, destination, id)).copied().unwrap_or(worker),
        }
    }
}

/// One file of the run, and the time stamps of its records in order.
pub struct Part {
    /// The file, as the pcap device wrote it.
    pub file: PathBuf,
    /// When each of its records stood in the capture; nanoseconds.
    pub timestamps: Vec<u64>,
}

/// Merges `parts` by time into `output`. Records of one part keep their order.
pub fn merge(parts: &[Part], output: &mut tempfile::NamedTempFile) -> Result<u64, CaptureError> {
    let path = output.path().to_owned();
    let mut writer = Writer::over(path.clone(), BufWriter::new(output.as_file_mut()))?;
    let mut sources = Vec::new();
    for part in parts {
        let mut records = Records::open(&part.file)?;
        if let Some(record) = records.next()? {
            sources.push((records, record, part.timestamps.iter().copied()));
        }
    }
    let mut heads: Vec<Option<u64>> = sources.iter_mut().map(|(_, _, timestamps)| timestamps.next()).collect();
    // Few parts: comparing their heads costs less than keeping a heap of them.
    while let Some((index, at)) =
        heads.iter().enumerate().filter_map(|(index, at)| at.map(|at| (index, at))).min_by_key(|(_, at)| *at)
    {
        let (records, record, timestamps) = &mut sources[index];
        writer.write(Duration::from_nanos(at), &record.bytes)?;
        match records.next()? {
            Some(next) => {
                *record = next;
                // A part's clock never goes back, so neither may the order of its records.
                heads[index] = timestamps.next().map(|next| next.max(at));
            }
            None => heads[index] = None,
        }
    }
    let written = writer.records;
    writer.finish()?;
    Ok(written)
}

/// Writes classic pcap with nanosecond time stamps.
struct Writer<W: Write> {
    path: PathBuf,
    writer: PcapWriter<W>,
    records: u64,
}

impl Writer<BufWriter<File>> {
    fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = File::create(path).map_err(|source| CaptureError::Unwritable { path: path.to_owned(), source })?;
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

    fn write(&mut self, timestamp: Duration, bytes: &[u8]) -> Result<(), CaptureError> {
        let packet = PcapPacket::new(timestamp, bytes.len() as u32, bytes);
        self.writer.write_packet(&packet).map_err(|error| unwritable(self.path.clone(), error))?;
        self.records += 1;
        Ok(())
    }

    fn finish(self) -> Result<(), CaptureError> {
        let Writer { path, writer, .. } = self;
        writer.into_writer().flush().map_err(|source| CaptureError::Unwritable { path, source })
    }
}

fn unwritable(path: PathBuf, error: PcapError) -> CaptureError {
    let source = match error {
        PcapError::IoError(source) => source,
        other => io::Error::other(other.to_string()),
    };
    CaptureError::Unwritable { path, source }
}
