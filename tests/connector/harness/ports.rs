//! Ports for daemons under test, so that tests that run side by side never meet.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's ephemeral range, so that no outgoing connection sits on one of them.
const LOWEST: u16 = 10_000;
const BLOCKS: u16 = 340;
const BLOCK: u16 = 64;

/// 63 ports in a row that nobody else uses while this value lives.
pub struct PortBlock {
    /// Bound to the block's first port: the lock, which the kernel takes back even from a test that crashed.
    _lock: TcpListener,
    first: u16,
}

impl PortBlock {
    /// Reserves a block.
    pub fn reserve() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = (process::id() as u16).wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        (0..BLOCKS).find_map(|i| Self::try_block(start.wrapping_add(i) % BLOCKS)).expect("a block of free ports")
    }

    fn try_block(number: u16) -> Option<Self> {
        let first = LOWEST + number * BLOCK;
        let _lock = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (first + 1..first + BLOCK).all(free).then_some(Self { _lock, first })
    }

    pub fn api(&self) -> u16 {
        self.first + 1
    }

    pub fn broker(&self) -> u16 {
        self.first + 2
    }

    /// First and last port for mappings.
    pub fn mappings(&self) -> (u16, u16) {
        (self.first + 3, self.first + BLOCK - 1)
    }
}
