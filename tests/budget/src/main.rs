//! Carries the packets of one scene, for valgrind to count what they cost: `slr-budget SCENE PACKETS`.
//!
//! The frames lie on the heap, and every scene has 1,000 flows. What is to be counted is the function `measured`.

use std::hint::black_box;
use std::process::ExitCode;

use slr::flow::memory::{Heap, Memory};
use zerocopy::FromZeros;

mod frame;
#[path = "../../../benches/scenes/mod.rs"]
mod scenes;

use frame::HeapFrame;
use scenes::{BenchIo, Kind, Machine, Scene, Stage, Tunnel};

const FLOWS: u32 = 1_000;
const NEW_FLOWS: u32 = 16_384;

#[rustfmt::skip]
const SCENES: [Scene; 8] = [
    Scene { name: "udp4",   kind: Kind::V4,          tunnel: Tunnel::IpIp,  flows: FLOWS },
    Scene { name: "tcp4",   kind: Kind::Tcp,         tunnel: Tunnel::IpIp,  flows: FLOWS },
    Scene { name: "udp6",   kind: Kind::V6,          tunnel: Tunnel::IpIp,  flows: FLOWS },
    Scene { name: "over6",  kind: Kind::V4,          tunnel: Tunnel::IpIp6, flows: FLOWS },
    Scene { name: "gue",    kind: Kind::V4,          tunnel: Tunnel::Gue,   flows: FLOWS },
    Scene { name: "gre",    kind: Kind::V4,          tunnel: Tunnel::Gre,   flows: FLOWS },
    Scene { name: "decap",  kind: Kind::Decapsulate, tunnel: Tunnel::IpIp,  flows: FLOWS },
    Scene { name: "new",    kind: Kind::New,         tunnel: Tunnel::IpIp,  flows: FLOWS },
];

/// No clock.
struct Valgrind;

impl Machine for Valgrind {
    type Memory = Asked;

    fn cycles() -> u64 {
        0
    }
}

/// The heap, with prefetches that cost an instruction as the processor's do.
struct Asked;

impl Memory for Asked {
    type Slice<T: FromZeros + Send> = Vec<T>;

    fn zeroed<T: FromZeros + Send>(len: usize) -> Option<Vec<T>> {
        Heap::zeroed(len)
    }

    #[inline(always)]
    fn prefetch<T>(at: &T) {
        black_box(at);
    }
}

fn carry(name: &str, packets: u32) -> Option<()> {
    let scene = *SCENES.iter().find(|scene| scene.name == name)?;
    // Of new flows each packet is one; there is the same room for them whatever their number.
    let flows = if scene.kind == Kind::New { NEW_FLOWS } else { scene.flows };
    let mut stage = Stage::<HeapFrame, Valgrind>::new(Scene { flows, ..scene })?;
    let mut io = BenchIo::new(|| Some(HeapFrame::new(stage.frames.any())))?;
    if scene.kind == Kind::New {
        let mut flow = 0;
        stage.pass(&mut io, packets, &mut |_| (), |_| {
            flow += 1;
            flow
        });
    } else {
        stage.fill(&mut io);
        stage.round(&mut io, packets, &mut |_| ());
    }
    let counted = stage.counters.packets();
    (counted.received == counted.forwarded).then_some(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(scene), Some(Ok(packets))) = (arguments.next(), arguments.next().map(|packets| packets.parse())) else {
        SCENES.iter().for_each(|scene| println!("{}", scene.name));
        return ExitCode::SUCCESS;
    };
    match carry(&scene, packets) {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}
