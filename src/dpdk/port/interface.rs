//! Tells what Linux knows about the network interface that a virtual device sits on, where the driver does not.

use std::fs;
use std::path::{Path, PathBuf};

/// A network interface, by its directory in sysfs.
pub(super) struct Interface(PathBuf);

impl Interface {
    /// The interface of this index; `None` where there is none, as for index 0.
    pub(super) fn of(index: u32) -> Option<Interface> {
        let interfaces = fs::read_dir("/sys/class/net").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        interfaces.into_iter().find(|path| number(&path.join("ifindex")) == Some(index)).map(Interface)
    }

    /// Longest packet in bytes.
    pub(super) fn mtu(&self) -> Option<u16> {
        number(&self.0.join("mtu")).map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Sets the longest packet, in bytes; whether the kernel took it.
    pub(super) fn set_mtu(&self, mtu: u16) -> bool {
        fs::write(self.0.join("mtu"), mtu.to_string()).is_ok()
    }

    /// Whether it is there and nothing says that it cannot carry packets.
    pub(super) fn is_up(&self) -> bool {
        // "unknown" is that of interfaces without a cable.
        fs::read_to_string(self.0.join("operstate")).is_ok_and(|state| matches!(state.trim(), "up" | "unknown"))
    }
}

fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_is_up_without_a_cable() {
        let index = number(Path::new("/sys/class/net/lo/ifindex")).expect("an index");
        let loopback = Interface::of(index).expect("an interface");
        assert!(loopback.mtu().is_some_and(|mtu| mtu >= 1500));
        assert!(Interface::of(0).is_none());
        // As an interface is after `ip link delete`.
        assert!(!Interface("/sys/class/net/nosuch0".into()).is_up());
    }
}
