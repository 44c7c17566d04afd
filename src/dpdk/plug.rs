//! Decides which of DPDK's ports a device's name means, and plugs the device in where there is none yet.

use std::ffi::{CStr, CString, c_int};
use std::path::Path;

use super::port::PortError;
use super::{log, reason, sys};

/// `-EFAULT`: no bus knows the device's name.
const UNKNOWN_NAME: c_int = -14;

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
    if pci && !Path::new("/sys/bus/pci/devices").join(full_pci_address(name)).exists() {
        return Err(PortError::NoPciDevice(device.to_owned()));
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
