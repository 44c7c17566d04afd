//! Says why a port does not come up, and what to do about it.

/// Why a port does not come up.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// There is no EAL.
    #[error("port `{0}` cannot be opened: the DPDK environment is not running")]
    NotRunning(String),
    /// The text names no device.
    #[error("`{0}` names no device (write a PCI address, 0000:03:00.0, or a virtual one, net_af_packet0,iface=eth1)")]
    Name(String),
    /// It is open in this process.
    #[error("port `{0}` is open already; a device is one port, and the name of a virtual one (net_tap0) is unique")]
    AlreadyOpen(String),
    /// No such network interface.
    #[error("port `{device}` cannot be opened: there is no network interface `{interface}` (see `ip link`)")]
    NoInterface {
        /// The port.
        device: String,
        /// The interface it names.
        interface: String,
    },
    /// No such PCI device.
    #[error("port `{0}` cannot be opened: there is no such PCI device (see `scripts/bind-nic --list`)")]
    NoPciDevice(String),
    /// There is such a PCI device, but DPDK did not take it.
    #[error(
        "port `{device}` cannot be opened: DPDK has no hold of it; bind it to a driver for DPDK \
         (`scripts/bind-nic {device}`). {reason}"
    )]
    Pci {
        /// The port.
        device: String,
        /// DPDK's error and log.
        reason: String,
    },
    /// Linux uses the PCI device.
    #[error(
        "port `{device}` cannot be opened: Linux uses it (driver {driver}); give it to DPDK with \
         `scripts/bind-nic {device}`, or put slrd on its interface with net_af_packet0,iface=NAME"
    )]
    KernelDriver {
        /// The port.
        device: String,
        /// The kernel's driver.
        driver: String,
    },
    /// No driver makes such a virtual device.
    #[error(
        "port `{0}` cannot be opened: DPDK has no driver of that name here (such as net_af_packet, net_tap, net_pcap); it \
         may be a plug-in that is not installed"
    )]
    UnknownDriver(String),
    /// The driver of the virtual device refused.
    #[error("port `{device}` cannot be opened: {reason}")]
    Probe {
        /// The port.
        device: String,
        /// DPDK's error and log.
        reason: String,
    },
    /// The device has fewer queues than asked for.
    #[error("port `{device}` has {has} {direction} queues, and {asked} workers need one each: {advice}")]
    Queues {
        /// The port.
        device: String,
        /// `receive` or `transmit`.
        direction: &'static str,
        /// Queues asked for.
        asked: u16,
        /// Queues there are.
        has: u16,
        /// What to do.
        advice: String,
    },
    /// The device cannot have this MTU.
    #[error("port `{device}` cannot have an MTU of {asked}: {advice}")]
    Mtu {
        /// The port.
        device: String,
        /// The MTU asked for.
        asked: u16,
        /// What to do.
        advice: String,
    },
    /// A step of setting it up or starting it failed.
    #[error("port `{device}`: {step} failed: {reason}")]
    Setup {
        /// The port.
        device: String,
        /// The step.
        step: &'static str,
        /// DPDK's error and log.
        reason: String,
    },
    /// Close while queues of the port are held; it closes when they are gone.
    #[error("port `{0}` is not closed: some of its queues are still held")]
    QueuesInUse(String),
}
