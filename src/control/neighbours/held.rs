//! Addresses that this router has for the time being: those of its pair, while it is the active one.

use std::net::IpAddr;

use super::{BROADCAST, Neighbours, Output, Side, wire};
use crate::packet::arp::ArpPacket;
use crate::packet::ndp::{self, NeighbourMessage};
use crate::tunnel::template::Link;
use crate::units::{MacAddr, PortIndex};

impl Side {
    /// Where an address is, if it is here.
    pub(super) fn answers_for(&self, address: IpAddr) -> Option<MacAddr> {
        let held = || self.held.iter().find(|(held, _)| *held == address).map(|(_, mac)| *mac);
        if self.own.contains(&address) { Some(self.mac) } else { held() }
    }

    /// Whether frames to this link-layer address are for us.
    pub(super) fn is_at(&self, mac: MacAddr) -> bool {
        self.mac == mac || self.held.iter().any(|(_, held)| *held == mac)
    }
}

impl Neighbours {
    /// Answers from now on for these addresses on a port, each at its link-layer address, or (none) for no such any more.
    pub fn hold(&mut self, port: PortIndex, addresses: &[(IpAddr, MacAddr)]) {
        let Some(side) = self.sides.get_mut(port.index()) else { return };
        let before = std::mem::replace(&mut side.held, addresses.to_vec());
        for (address, _) in &before {
            self.own.remove(address);
        }
        self.own.extend(addresses.iter().map(|(address, _)| *address));
    }

    /// Holds what `before` does.
    pub(super) fn hold_as(&mut self, before: &Neighbours) {
        for (port, side) in (0..).map(PortIndex).zip(&before.sides) {
            self.hold(port, &side.held);
        }
    }

    /// Tells everyone on its link where each of these addresses is.
    pub fn announce_held(&self) -> Vec<Output> {
        let sides = (0..).map(PortIndex).zip(&self.sides);
        sides
            .flat_map(|(port, side)| side.held.iter().map(move |(own, mac)| self.announcement(port, *own, *mac)))
            .collect()
    }

    /// Says that an address is here (RFC 5227 section 3; RFC 4861 section 7.2.6).
    pub(super) fn announcement(&self, port: PortIndex, own: IpAddr, mac: MacAddr) -> Output {
        let towards = |destination| Link { source: mac, ..self.link_to(port, destination) };
        let frame = match own {
            IpAddr::V4(own) => wire::arp(towards(BROADCAST), &ArpPacket::request(mac, own, own)),
            IpAddr::V6(own) => {
                let message = NeighbourMessage::advertisement(own, mac, ndp::ROUTER | ndp::OVERRIDE);
                wire::neighbour(towards(ndp::group_mac(ndp::ALL_NODES)), own, ndp::ALL_NODES, message)
            }
        };
        Output::Send { port, frame }
    }
}
