//! Decides how a port comes up and goes down: plugged, configured, started, and closed when nobody polls it any more.

mod error;
mod interface;

use std::ffi::{CStr, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub use error::PortError;
use interface::Interface;

use super::eal::Lease;
use super::plug::find_or_plug;
use super::pool::Pool;
use super::queue::{Ops, RxQueue, TxQueue};
use super::{lock, log, mbuf, reason, sys};
use crate::units::MacAddr;

/// `-ENOTSUP`
const NOT_SUPPORTED: c_int = -95;
/// Ethernet header with two VLAN tags, and the frame check sequence that some devices deliver.
const FRAME_OVERHEAD_BYTES: u16 = 14 + 8 + 4;
/// Packets that one ring of a `net_ring` device holds, at most.
const RING_PACKETS_MAX: usize = 1024;

/// Ports that are open, by DPDK's number. Locked while a device is plugged, started or closed: one at a time.
static OPEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// How to set a port up.
#[derive(Clone, Debug)]
pub struct PortOptions {
    /// Receive queues.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; the driver's limits are kept. Each may hold a buffer of the pool.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; the driver's limits are kept.
    pub tx_descriptors: u16,
    /// Largest packet without Ethernet header, in bytes. One that does not fit the pool's data room comes in segments,
    /// where the driver can do that.
    pub mtu: u16,
    /// Receives frames for any Ethernet address.
    pub promiscuous: bool,
    /// Receives frames for any group of machines, which IPv6 neighbour discovery needs (RFC 4861 section 7.2.1).
    pub all_multicast: bool,
}

impl Default for PortOptions {
    /// One queue each way, 1024 descriptors a queue, MTU 1500, own frames only.
    fn default() -> PortOptions {
        PortOptions {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: false,
            all_multicast: false,
        }
    }
}

/// What the device counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received wrong.
    pub rx_errors: u64,
    /// Packets that the device dropped because queues were full.
    pub rx_missed: u64,
    /// Times that there was no buffer for a packet.
    pub rx_no_buffer: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// State of a port's cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Packets can pass.
    pub up: bool,
    /// Megabits per second; `None` where the driver cannot tell, or the link is down.
    pub speed_mbps: Option<u32>,
}

/// An open port. The device is closed when the port and all its queues are gone.
pub struct Port {
    device: Arc<Device>,
    promiscuous: bool,
    all_multicast: bool,
}

impl Port {
    /// Opens `device` and gives out its queues, which do nothing until [`Port::start`].
    ///
    /// `device` is what DPDK calls devargs: the PCI address of a device that is bound to a driver for DPDK, or a driver
    /// with a number and its parameters, `net_af_packet0,iface=eth1`, which makes a virtual device. Received packets come
    /// from `pool`. With several receive queues flows are spread over them by hash, where the device can do that.
    pub fn open(
        device: &str,
        options: &PortOptions,
        pool: &Pool,
    ) -> Result<(Port, Vec<RxQueue>, Vec<TxQueue>), PortError> {
        let lease = Lease::take().ok_or_else(|| PortError::NotRunning(device.to_owned()))?;
        let mut open = lock(&OPEN);
        let (id, plugged) = find_or_plug(device, &open)?;
        open.push(id);
        // From here on dropping it closes and unplugs the port, which takes the lock.
        drop(open);
        let mut device = Device {
            id,
            name: device.to_owned(),
            plugged,
            rx_queues: options.rx_queues,
            mtu: options.mtu,
            interface: None,
            shortcomings: Vec::new(),
            started: AtomicBool::new(false),
            _pool: pool.clone(),
            _lease: lease,
        };
        device.configure(options, pool)?;

        let device = Arc::new(device);
        // SAFETY: so many queues were just configured, and each is made once.
        let rx = (0..options.rx_queues).map(|index| unsafe { RxQueue::new(&device, index) }).collect();
        // SAFETY: as above.
        let tx = (0..options.tx_queues).map(|index| unsafe { TxQueue::new(&device, index) }).collect();
        let PortOptions { promiscuous, all_multicast, .. } = *options;
        Ok((Port { device, promiscuous, all_multicast }, rx, tx))
    }

    /// Starts the device: from now on its queues carry packets.
    pub fn start(&self) -> Result<(), PortError> {
        let _one_at_a_time = lock(&OPEN);
        let device = &*self.device;
        if device.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: the device is configured and its queues, which are not started, do not touch it.
        device.step("start", || unsafe { sys::rte_eth_dev_start(device.id) })?;
        device.started.store(true, Ordering::Release);
        if self.promiscuous {
            // SAFETY: the port is open, as everywhere below.
            device.step("promiscuous mode", || unsafe { sys::rte_eth_promiscuous_enable(device.id) })?;
        }
        if self.all_multicast {
            device.step("receiving multicast", || {
                // SAFETY: as above.
                match unsafe { sys::rte_eth_allmulticast_enable(device.id) } {
                    // Such a device filters nothing: net_af_packet, rings.
                    NOT_SUPPORTED => 0,
                    status => status,
                }
            })?;
        }
        Ok(())
    }

    /// Stops and closes the device; what it sent is out. Its queues have to be dropped before; else it closes with them.
    pub fn close(self) -> Result<(), PortError> {
        let name = self.device.name.clone();
        match Arc::into_inner(self.device) {
            Some(device) => drop(device),
            None => return Err(PortError::QueuesInUse(name)),
        }
        Ok(())
    }

    /// The device's counters.
    pub fn stats(&self) -> PortStats {
        let mut stats = sys::rte_eth_stats::default();
        // SAFETY: the port is open and `stats` ours to write. Where the driver does not count they stay zero.
        unsafe { sys::rte_eth_stats_get(self.device.id, &raw mut stats) };
        PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_errors: stats.ierrors,
            rx_missed: stats.imissed,
            rx_no_buffer: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        }
    }

    /// The device's Ethernet address; zero where it has none.
    pub fn mac(&self) -> MacAddr {
        let mut address = sys::rte_ether_addr::default();
        // SAFETY: the port is open and `address` ours to write.
        unsafe { sys::rte_eth_macaddr_get(self.device.id, &raw mut address) };
        MacAddr(address.addr_bytes)
    }

    /// The state of the cable, without waiting for a change under way.
    pub fn link(&self) -> Link {
        let mut mbps = 0;
        // SAFETY: the port is open and `mbps` ours to write.
        let up = unsafe { sys::slr_link(self.device.id, &raw mut mbps) };
        // net_af_packet and net_af_xdp say that it is up whatever happens to their interface.
        let up = up && self.device.interface.as_ref().is_none_or(Interface::is_up);
        Link { up, speed_mbps: (up && mbps != 0 && mbps != u32::MAX).then_some(mbps) }
    }

    /// Largest packet without Ethernet header, in bytes.
    pub fn mtu(&self) -> u16 {
        self.device.mtu
    }

    /// What the device cannot do of what this port is for, one sentence each.
    pub fn shortcomings(&self) -> &[String] {
        &self.device.shortcomings
    }

    /// The driver's name.
    pub fn driver(&self) -> String {
        self.device.info().map(|info| driver_name(&info)).unwrap_or_default()
    }
}

/// The largest MTU that DPDK lets us set. Where the driver gives none, DPDK computes it from the largest frame.
fn mtu_max(info: &sys::rte_eth_dev_info) -> u16 {
    const HEADER_AND_CHECK_BYTES: u32 = 18;
    match info.max_mtu {
        u16::MAX => u16::try_from(info.max_rx_pktlen.saturating_sub(HEADER_AND_CHECK_BYTES)).unwrap_or(u16::MAX),
        mtu => mtu,
    }
}

/// DPDK's port. Shared by the [`Port`] and its queues; the last of them closes it.
pub struct Device {
    id: u16,
    name: String,
    plugged: bool,
    rx_queues: u16,
    mtu: u16,
    /// The interface of Linux that the device sits on.
    interface: Option<Interface>,
    shortcomings: Vec<String>,
    /// Never false again once it is true: only the drop stops the device, when no queue can poll it.
    started: AtomicBool,
    _pool: Pool,
    _lease: Lease,
}

impl Device {
    /// DPDK's number of the port.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Whether its queues may be polled; acquire before doing so.
    #[inline(always)]
    pub fn started(&self) -> &AtomicBool {
        &self.started
    }

    /// Runs one call of DPDK that returns 0 or a negative error number.
    fn step(&self, step: &'static str, call: impl FnOnce() -> c_int) -> Result<(), PortError> {
        let (status, said) = log::during(call);
        if status == 0 {
            return Ok(());
        }
        Err(PortError::Setup { device: self.name.clone(), step, reason: reason(status, &said) })
    }

    fn info(&self) -> Result<sys::rte_eth_dev_info, PortError> {
        let mut info = sys::rte_eth_dev_info::default();
        // SAFETY: the port is open and `info` ours to write.
        self.step("reading its properties", || unsafe { sys::rte_eth_dev_info_get(self.id, &raw mut info) })?;
        Ok(info)
    }

    fn configure(&mut self, options: &PortOptions, pool: &Pool) -> Result<(), PortError> {
        let info = self.info()?;
        self.interface = Interface::of(info.if_index);
        let driver = driver_name(&info);
        for (direction, asked, has) in
            [("receive", options.rx_queues, info.max_rx_queues), ("transmit", options.tx_queues, info.max_tx_queues)]
        {
            if asked > has {
                let advice = queue_advice(&driver, asked);
                return Err(PortError::Queues { device: self.name.clone(), direction, asked, has, advice });
            }
        }
        let (asked, settable) = (options.mtu, self.settable_mtu(&info, &driver, options.mtu)?);
        // net_pcap gives microseconds since 1970. What the clocks of network cards count is not known here.
        mbuf::enable_timestamps(self.id, if driver == "net_pcap" { 1000 } else { 0 });

        let mut conf = sys::rte_eth_conf::default();
        conf.rxmode.mtu = u32::from(settable);
        if asked.saturating_add(FRAME_OVERHEAD_BYTES) > pool.data_room() {
            conf.rxmode.offloads |= info.rx_offload_capa & sys::SLR_RX_SCATTER;
            if conf.rxmode.offloads & sys::SLR_RX_SCATTER == 0 && driver != "net_memif" {
                let room = pool.data_room() - FRAME_OVERHEAD_BYTES;
                self.shortcomings.push(format!(
                    "receives no packets of more than {room} bytes, as {driver} cannot put one into several buffers"
                ));
            }
        }
        conf.txmode.offloads |= info.tx_offload_capa & sys::SLR_TX_MULTI_SEGS;
        let spread = info.flow_type_rss_offloads & sys::SLR_RSS_FLOWS;
        if options.rx_queues > 1 && spread != 0 {
            conf.rxmode.mq_mode = sys::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = spread;
        } else if options.rx_queues > 1 && !self.plugged {
            // Virtual devices have ways of their own.
            self.shortcomings
                .push("does not spread flows over its queues by hash: one worker gets most of them".to_owned());
        }
        let (rx, tx) = (options.rx_queues, options.tx_queues);
        // SAFETY: the port is open and not started, here and below; DPDK copies `conf`.
        self.step("configuring", || unsafe { sys::rte_eth_dev_configure(self.id, rx, tx, &raw const conf) })?;

        let (mut rx_length, mut tx_length) = (options.rx_descriptors, options.tx_descriptors);
        self.step("sizing its queues", || {
            // SAFETY: both numbers are ours to write.
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx_length, &raw mut tx_length) }
        })?;
        for queue in 0..rx {
            self.step("setting up a receive queue", || {
                // SAFETY: the pool lives as long as this device, which holds a handle. Null is the driver's defaults, and
                // socket 0xffff_ffff any.
                unsafe { sys::rte_eth_rx_queue_setup(self.id, queue, rx_length, u32::MAX, ptr::null(), pool.as_ptr()) }
            })?;
        }
        for queue in 0..tx {
            self.step("setting up a transmit queue", || {
                // SAFETY: as above.
                unsafe { sys::rte_eth_tx_queue_setup(self.id, queue, tx_length, u32::MAX, ptr::null()) }
            })?;
        }
        if settable < asked {
            // Who made the interface has to give it its MTU.
            if driver == "net_tap" && !self.interface.as_ref().is_some_and(|interface| interface.set_mtu(asked)) {
                return Err(PortError::Mtu {
                    device: self.name.clone(),
                    asked,
                    advice: format!("its interface does not take it, {settable} at most"),
                });
            }
            return Ok(());
        }
        self.step("setting its MTU", || {
            // SAFETY: as above.
            match unsafe { sys::rte_eth_dev_set_mtu(self.id, asked) } {
                // Nothing behind such a device has an MTU: files, rings.
                NOT_SUPPORTED => 0,
                status => status,
            }
        })
    }

    /// The MTU to set for `asked`: less than that where what is behind the device has it already, or has none.
    fn settable_mtu(&self, info: &sys::rte_eth_dev_info, driver: &str, asked: u16) -> Result<u16, PortError> {
        let (min, max) = (info.min_mtu, mtu_max(info));
        let below = self.interface.as_ref().and_then(Interface::mtu);
        let range = format!("choose one from {min} to {max}");
        let advice = match driver {
            // It cannot even start on an interface whose packets may be longer than a buffer of the kernel's.
            "net_af_xdp" if below.is_some_and(|mtu| mtu > max) => format!(
                "the network interface below allows packets longer than {max} bytes, which net_af_xdp cannot take \
                 (`ip link set dev IFACE mtu {max}`)"
            ),
            _ if (min..=max).contains(&asked) => return Ok(asked),
            // They name 1500 and little more as the most, and carry what their interface or their peer carries.
            "net_tap" | "net_memif" if asked > max => return Ok(max),
            "net_af_packet" if asked > max && below.is_some_and(|mtu| asked <= mtu) => return Ok(max),
            "net_af_packet" if asked > max => {
                format!(
                    "{range}, or give the network interface below it a larger one (`ip link set dev IFACE mtu {asked}`)"
                )
            }
            _ => range,
        };
        Err(PortError::Mtu { device: self.name.clone(), asked, advice })
    }

    /// Takes out what lies in the rings of a `net_ring` device: closing frees the rings, but not what is in them.
    fn drain(&mut self) {
        let is_ring = self.info().is_ok_and(|info| driver_name(&info) == "net_ring");
        if !is_ring || !self.started.load(Ordering::Acquire) {
            return;
        }
        for queue in 0..self.rx_queues {
            let mut mbufs = [ptr::null_mut(); 32];
            // One more poll than fills of the array, so that the last finds it empty.
            for _ in 0..=RING_PACKETS_MAX / mbufs.len() {
                // SAFETY: the device is started and its queues are gone, so nobody else polls. The packets are ours, and
                // freed once.
                unsafe {
                    let count = Ops::of(self.id).receive(queue, mbufs.as_mut_ptr(), mbufs.len() as u16);
                    sys::rte_pktmbuf_free_bulk(mbufs.as_mut_ptr(), count as u32);
                }
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.drain();
        let mut open = lock(&OPEN);
        let device = self.info().map_or(ptr::null_mut(), |info| info.device);
        // What fails here is in DPDK's log; there is nothing else to try.
        log::during(|| {
            // SAFETY: the port is open, and nobody polls it, as every queue holds this Device. The generic device behind
            // the port stays until it is removed, which happens once, where this port had plugged it.
            unsafe {
                if self.started.load(Ordering::Acquire) {
                    sys::rte_eth_dev_stop(self.id);
                }
                sys::rte_eth_dev_close(self.id);
                if self.plugged && !device.is_null() {
                    sys::rte_dev_remove(device);
                }
            }
        });
        open.retain(|&id| id != self.id);
    }
}

/// How a device of this driver comes to have `asked` queues.
fn queue_advice(driver: &str, asked: u16) -> String {
    let argument = match driver {
        "net_af_packet" => format!("add `,qpairs={asked}` to the device, or "),
        "net_af_xdp" => format!("add `,queue_count={asked}` to the device (`ethtool -L IFACE combined {asked}`), or "),
        "net_pcap" => "name a file or an interface for each, or ".to_owned(),
        _ => String::new(),
    };
    format!("{argument}run fewer workers (`workers.count`)")
}

fn driver_name(info: &sys::rte_eth_dev_info) -> String {
    if info.driver_name.is_null() {
        return String::new();
    }
    // SAFETY: a driver's name is a constant string; its library is never unloaded.
    unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
}
