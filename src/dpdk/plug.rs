//! Decides which of DPDK's ports a device's name means, and plugs the device in where there is none yet.

use std::ffi::{CStr, CString, c_int};
use std::path::Path;

use super::port::PortError;
use super::{log, reason, sys};

/// `-EFAULT`: no bus knows the device's name.
const UNKNOWN_NAME: c_int = -14;

const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// The port of `device`, and whether it had to be plugged for that. `open` are the ports in use.
///
/// The caller has a lease, and lets nobody else plug meanwhile.
pub fn find_or_plug(device: &str, open: &[u16]) -> Result<(u16, bool), PortError> {
    let name = device.split(',').next().unwrap_or_default();
    let bad_name = || PortError::Name(device.to_owned());
    let devargs = CString::new(device).map_err(|_| bad_name())?;
    let pci = is_pci_address(name);
    let port_name = CString::new(if pci { full_pci_address(name) } else { name.to_owned() }).map_err(|_| bad_name())?;
    if name.is_empty() {
        return Err(bad_name());
    }

    if let Some(id) = port_by_name(&port_name) {
        return if open.contains(&id) { Err(PortError::AlreadyOpen(device.to_owned())) } else { Ok((id, false)) };
    }
    if pci && !Path::new(PCI_DEVICES).join(full_pci_address(name)).exists() {
        return Err(PortError::NoPciDevice(device.to_owned()));
    }
    if pci && let Some(driver) = kernel_driver(Path::new(PCI_DEVICES), &full_pci_address(name)) {
        return Err(PortError::KernelDriver { device: device.to_owned(), driver });
    }
    if let Some(interface) = missing_interface(device) {
        return Err(PortError::NoInterface { device: device.to_owned(), interface: interface.to_owned() });
    }
    // SAFETY: `devargs` is a string, which DPDK copies; the caller's lease says that the EAL runs.
    let (status, said) = log::during(|| unsafe { sys::rte_dev_probe(devargs.as_ptr()) });
    if status == 0
        && let Some(id) = port_by_name(&port_name)
    {
        return Ok((id, true));
    }
    let device = device.to_owned();
    let reason = if status == 0 { "its driver made no network port of it".to_owned() } else { reason(status, &said) };
    Err(match status {
        _ if pci => PortError::Pci { device, reason },
        UNKNOWN_NAME => PortError::UnknownDriver(device),
        _ => PortError::Probe { device, reason },
    })
}

fn port_by_name(name: &CStr) -> Option<u16> {
    let mut id = 0;
    // SAFETY: `name` is a string and `id` ours to write; the caller's lease says that the EAL runs.
    let status = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) };
    (status == 0).then_some(id)
}

/// `0000:03:00.0` or, without the domain, `03:00.0`.
fn is_pci_address(name: &str) -> bool {
    let (address, function) = name.rsplit_once('.').unwrap_or_default();
    let parts: Vec<&str> = address.split(':').collect();
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bus = match parts[..] {
        [domain, bus, slot] => hex(domain, 4) && hex(bus, 2) && hex(slot, 2),
        [bus, slot] => hex(bus, 2) && hex(slot, 2),
        _ => false,
    };
    bus && hex(function, 1)
}

fn full_pci_address(name: &str) -> String {
    let domain = if name.matches(':').count() == 1 { "0000:" } else { "" };
    format!("{domain}{name}").to_ascii_lowercase()
}

/// Whether `device` is the address of a PCI device that is there and that Linux does not use.
pub fn is_free_pci_device(device: &str) -> bool {
    let name = device.split(',').next().unwrap_or_default();
    let address = full_pci_address(name);
    is_pci_address(name)
        && Path::new(PCI_DEVICES).join(&address).exists()
        && kernel_driver(Path::new(PCI_DEVICES), &address).is_none()
}

/// The driver of Linux that has the PCI device and does not share it with DPDK.
fn kernel_driver(devices: &Path, address: &str) -> Option<String> {
    const FOR_DPDK: [&str; 5] = ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core"];
    let driver = std::fs::read_link(devices.join(address).join("driver")).ok()?;
    let driver = driver.file_name()?.to_string_lossy().into_owned();
    (!FOR_DPDK.contains(&driver.as_str())).then_some(driver)
}

/// The network interface that `device` sits on and that does not exist.
fn missing_interface(device: &str) -> Option<&str> {
    // Others make their interface, as net_tap does.
    const ON_INTERFACE: [&str; 3] = ["net_af_packet", "net_af_xdp", "net_pcap"];
    if !ON_INTERFACE.iter().any(|driver| device.starts_with(driver)) {
        return None;
    }
    let interfaces =
        device.split(',').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| key.ends_with("iface"));
    interfaces.map(|(_, name)| name).find(|name| !Path::new("/sys/class/net").join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for (name, full) in [("0000:03:00.1", "0000:03:00.1"), ("AF:1f.0", "0000:af:1f.0")] {
            assert!(is_pci_address(name));
            assert_eq!(full_pci_address(name), full);
        }
        for name in ["", "net_null0", "net_tap0", "0000:03:00", "03.0", "0000:0g:00.0", "1:0000:03:00.0"] {
            assert!(!is_pci_address(name), "{name}");
        }
    }

    #[test]
    fn a_card_that_linux_uses_is_told_from_one_that_dpdk_may_have() {
        let devices = tempfile::tempdir().expect("a directory");
        for (address, driver) in
            [("0000:01:00.0", "e1000e"), ("0000:02:00.0", "vfio-pci"), ("0000:03:00.0", "mlx5_core")]
        {
            let device = devices.path().join(address);
            std::fs::create_dir(&device).expect("a directory");
            std::os::unix::fs::symlink(format!("../drivers/{driver}"), device.join("driver")).expect("a link");
        }
        std::fs::create_dir(devices.path().join("0000:04:00.0")).expect("a directory");
        let used = |address| kernel_driver(devices.path(), address);
        assert_eq!(used("0000:01:00.0").as_deref(), Some("e1000e"));
        for free in ["0000:02:00.0", "0000:03:00.0", "0000:04:00.0"] {
            assert_eq!(used(free), None, "{free}");
        }
    }

    #[test]
    fn a_missing_interface_is_found_before_the_driver_stumbles_over_it() {
        for (device, missing) in [
            ("net_af_packet0,iface=nosuch0", Some("nosuch0")),
            ("net_pcap0,rx_iface=lo,tx_iface=nosuch1", Some("nosuch1")),
            ("net_af_packet0,iface=lo", None),
            ("net_tap0,iface=nosuch0", None),
            ("net_null0", None),
        ] {
            assert_eq!(missing_interface(device), missing, "{device}");
        }
    }
}
