//! What a capture leaves: the filter as a program, and the file of its frames.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::{DataLink, PcapError, TsResolution};

use super::response::{CapturedFrame, from_hex};

/// Time stamps of a pcapng file are in 10^-9 seconds.
const NANOSECONDS: u8 = 9;

/// The filter is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter \"{filter}\": {reason}; see man pcap-filter, or write '' for every frame")]
pub struct CompileError {
    filter: String,
    reason: String,
}

/// Compiles a filter in tcpdump's language for Ethernet frames: code, jt, jf, k of each instruction.
///
/// # Errors
/// What libpcap says.
pub fn compile(filter: &str) -> Result<Vec<(u16, u8, u8, u32)>, CompileError> {
    let error = |reason: String| CompileError { filter: filter.to_owned(), reason };
    let dead = pcap::Capture::dead(pcap::Linktype::ETHERNET).map_err(|why| error(why.to_string()))?;
    let program = dead.compile(filter, true).map_err(|why| match why {
        pcap::Error::PcapError(reason) => error(reason),
        why => error(why.to_string()),
    })?;
    // An instruction shows its fields only as a line of four numbers.
    let fields = |line: String| {
        let mut numbers = line.split(' ').map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some((next()?.try_into().ok()?, next()?.try_into().ok()?, next()?.try_into().ok()?, next()?))
    };
    let instructions = program.get_instructions().iter().map(|instruction| fields(instruction.to_string()));
    instructions.collect::<Option<Vec<_>>>().ok_or_else(|| error("libpcap's program is not understood".into()))
}

/// A file of captured frames.
pub struct Recording {
    format: Format,
    file: Shared,
}

enum Format {
    Pcap(PcapWriter<Shared>),
    /// With the names of the ports that are described in it.
    PcapNg(PcapNgWriter<Shared>, Vec<String>),
}

/// The file, which the writers of both formats would keep to themselves.
#[derive(Clone)]
struct Shared(Rc<RefCell<BufWriter<Box<dyn Write>>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl Recording {
    /// Starts a file: pcapng where its name ends in `.pcapng`, else pcap; `-` is standard output.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path, snap_len: u16) -> io::Result<Recording> {
        let file: Box<dyn Write> = match path.as_os_str() == "-" {
            true => Box::new(io::stdout()),
            false => Box::new(File::create(path)?),
        };
        let mut file = Shared(Rc::new(RefCell::new(BufWriter::new(file))));
        let format = match path.extension().is_some_and(|extension| extension == "pcapng") {
            true => Format::PcapNg(PcapNgWriter::new(file.clone()).map_err(io_error)?, Vec::new()),
            false => {
                let header = PcapHeader {
                    snaplen: snap_len.into(),
                    datalink: DataLink::ETHERNET,
                    ts_resolution: TsResolution::NanoSecond,
                    ..PcapHeader::default()
                };
                Format::Pcap(PcapWriter::with_header(file.clone(), header).map_err(io_error)?)
            }
        };
        file.flush()?;
        Ok(Recording { format, file })
    }

    /// Adds a frame; in a pcapng file with its port, and why it was dropped as a comment.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&mut self, frame: &CapturedFrame) -> io::Result<()> {
        let bytes = from_hex(&frame.bytes).ok_or(io::ErrorKind::InvalidData)?;
        let time = Duration::from_nanos(frame.time_ns);
        match &mut self.format {
            Format::Pcap(writer) => {
                let packet = PcapPacket::new_owned(time, frame.length, bytes);
                writer.write_packet(&packet).map_err(io_error)?;
            }
            Format::PcapNg(writer, ports) => {
                let known = ports.iter().position(|port| *port == frame.port);
                let interface = match known {
                    Some(interface) => interface,
                    None => {
                        let name = InterfaceDescriptionOption::IfName(frame.port.clone().into());
                        let resolution = InterfaceDescriptionOption::IfTsResol(NANOSECONDS);
                        let options = vec![name, resolution];
                        let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
                        writer.write_pcapng_block(block).map_err(io_error)?;
                        ports.push(frame.port.clone());
                        ports.len() - 1
                    }
                };
                let comment = frame.dropped.as_ref().map(|reason| format!("dropped: {reason}"));
                let block = EnhancedPacketBlock {
                    interface_id: interface as u32,
                    timestamp: time,
                    original_len: frame.length,
                    data: bytes.into(),
                    options: comment.into_iter().map(|text| EnhancedPacketOption::Comment(text.into())).collect(),
                };
                writer.write_pcapng_block(block).map_err(io_error)?;
            }
        }
        // Whoever looks at the file meanwhile sees whole frames.
        self.file.flush()
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::bpf::{Instruction, Program};

    fn program(filter: &str) -> Program {
        let code = compile(filter).unwrap_or_else(|error| panic!("{error}"));
        let instruction = |&(code, jt, jf, k): &(u16, u8, u8, u32)| Instruction { code, jt, jf, k };
        Program::new(&code.iter().map(instruction).collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_filter_that_is_none_is_one_clear_line() {
        for (filter, words) in [("tpc port 80", "syntax error"), ("host no-such-host.invalid", "no-such-host")] {
            let said = compile(filter).expect_err(filter).to_string();
            assert!(said.contains(words) && said.contains(filter) && !said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_filter_that_loops_is_refused_with_its_reason() {
        let code = compile("ip6 protochain 6").expect("libpcap takes it");
        let code: Vec<_> = code.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
        let said = Program::new(&code).expect_err("a loop").to_string();
        assert!(said.contains("loops, as protochain makes them, are not taken"), "{said}");
    }

    /// Whatever else libpcap compiles takes the same frames here as by libpcap's own interpreter.
    #[test]
    fn programs_decide_as_libpcap_does() {
        let filters = [
            "",
            "ip",
            "ip6",
            "arp",
            "tcp",
            "udp port 53",
            "tcp dst port 443 and not src net 10.0.0.0/8",
            "host 192.0.2.11",
            "ip[6:2] & 0x1fff != 0",
            "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
            "icmp or icmp6",
            "vlan and ip",
            "len > 600",
            "len / 3 == 100 or len % 7 == 2",
            "ether[0] & 1 = 1",
            "ip proto 4 and ip[20:4] > ip[24:4]",
            "portrange 1000-40000",
            "(ip[2:2] - ((ip[0]&0xf)<<2)) > 100",
        ];
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/demo.pcap");
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut reader = pcap_file::pcap::PcapReader::new(File::open(path).expect("a capture")).expect("a capture");
        while let Some(packet) = reader.next_packet() {
            frames.push(packet.expect("a packet").data.into_owned());
        }
        // Cut anywhere, a frame is still a frame.
        let cut: Vec<Vec<u8>> =
            frames.iter().take(60).flat_map(|frame| (0..frame.len().min(70)).map(|at| frame[..at].to_vec())).collect();
        frames.extend(cut);
        let dead = pcap::Capture::dead(pcap::Linktype::ETHERNET).expect("libpcap");
        for filter in filters {
            let (ours, theirs) = (program(filter), dead.compile(filter, true).expect(filter));
            let mut taken = 0;
            for frame in &frames {
                let expected = theirs.filter(frame);
                assert_eq!(ours.takes(frame, frame.len() as u32), expected, "{filter}: {frame:02x?}");
                taken += usize::from(expected);
            }
            assert!(
                filter.contains("4 and") || filter.contains("0x1fff") || filter == "vlan and ip" || taken > 0,
                "{filter} takes nothing"
            );
        }
    }

    #[test]
    fn files_of_both_kinds_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let frame = |time_ns, port: &str, dropped: Option<&str>| CapturedFrame {
            time_ns,
            port: port.into(),
            length: 1500,
            dropped: dropped.map(Into::into),
            bytes: "0102ff".into(),
        };
        let frames =
            [frame(1_700_000_000_123_456_789, "a", None), frame(1_700_000_001_000_000_001, "b", Some("no_child"))];
        for name in ["x.pcap", "x.pcapng"] {
            let path = directory.path().join(name);
            let mut recording = Recording::create(&path, 2048).expect("a file");
            frames.iter().for_each(|frame| recording.add(frame).expect("room"));
            drop(recording);
            let mut capture = pcap::Capture::from_file_with_precision(&path, pcap::Precision::Nano).expect(name);
            for frame in &frames {
                let packet = capture.next_packet().expect(name);
                let time = packet.header.ts.tv_sec as u64 * 1_000_000_000 + packet.header.ts.tv_usec as u64;
                assert_eq!((time, packet.header.len, packet.data), (frame.time_ns, 1500, &[1, 2, 255][..]), "{name}");
            }
            assert!(capture.next_packet().is_err());
        }
        let text = std::fs::read(directory.path().join("x.pcapng")).expect("a file");
        let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
        assert!(has(b"dropped: no_child"));
    }
}
