//! Decides how a worker reads time: the processor's time-stamp counter, without a system call.

use super::sys;

/// Cycles of the time-stamp counter, the same on all processors of the machine.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the instruction exists on every x86-64 processor and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Cycles per second; 0 before [`super::Eal::init`], which measures it.
pub fn hz() -> u64 {
    // SAFETY: reads a number that is written once, during `Eal::init`.
    unsafe { sys::rte_get_tsc_hz() }
}
