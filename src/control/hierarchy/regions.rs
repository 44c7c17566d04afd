//! Costs and shares for clients in each region, in virtual hosts that ask where clients are; beside those of clients in none.

use super::shares::{Price, Shares};
use super::{Hierarchy, Turn};
use crate::config::Config;
use crate::control::conditions::Steer;

impl Hierarchy {
    /// Adds what is said of a virtual host's children for clients in each region to what `steers` says of them for clients
    /// in none, whose `prices` those are.
    pub(super) fn steer_by_region(
        &mut self,
        config: &Config,
        (position, steps): Turn,
        prices: &[Option<Price>],
        steers: &mut Vec<Steer>,
    ) {
        let host = &config.virtual_hosts[position];
        let members = steers.len();
        // One region's shares after the other.
        let mut shares = self.regional.remove(&position).unwrap_or_default();
        shares.resize(config.client_regions.len(), Shares::default());
        for (region, shares) in config.client_regions.iter().zip(&mut shares) {
            let (first, mut prices) = (steers.len(), prices.to_vec());
            for place in 0..members {
                let mut steer = steers[place];
                if let Steer::Takes { cost, .. } = &mut steer {
                    let here = self.cost(config, position, (place, region));
                    *cost = Some(here);
                    if let Some(Some(price)) = prices.get_mut(place) {
                        price.cost = here;
                    }
                }
                steers.push(steer);
            }
            if host.shares {
                share(shares, &prices, steps, &mut steers[first..]);
            }
        }
        self.regional.insert(position, shares);
    }
}

/// Lets shares go on where an interval is over, or somebody else takes flows, and says them.
pub(super) fn share(shares: &mut Shares, prices: &[Option<Price>], steps: bool, steers: &mut [Steer]) {
    if steps || prices.iter().enumerate().any(|(at, price)| price.is_some() != (shares.of(at) > 0.0)) {
        shares.step(prices, steps);
    }
    for (steer, share) in steers.iter_mut().zip(shares.weights()) {
        if let Steer::Takes { weight, .. } = steer {
            *weight = Some(share);
        }
    }
}
