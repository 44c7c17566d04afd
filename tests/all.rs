//! Every test that is not beside what it tests: one program, as linking many takes longer than running them.

mod common;

mod agent;
mod behaviours;
mod compile;
mod config;
mod ctl;
mod devices;
mod dpdk;
mod elsewhere;
mod fuzz_seeds;
mod health;
mod host_config;
mod lab;
mod lab_agent;
mod lab_cluster;
mod lab_levels;
mod live_health;
mod live_neighbours;
mod neighbours;
mod packet_captures;
mod pipeline;
mod reload;
mod replay;
mod routing;
mod scripts;
mod senders;
mod sessions;
mod shortcuts;
mod sim;
mod slrctl;
mod slrd;
mod strays;
mod subnets;
mod tidy;
mod whohas;
