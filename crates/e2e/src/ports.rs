//! Ports for programs that are told theirs before they start.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports that are tried, one after the other from a random place, so that no two stands of a process get the same.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..RANGE.len() as u16)));

/// Ports of this host that nobody has, all different. They lie below those that the system gives to outgoing connections, which it
/// may do at any moment between now and the start of the program.
///
/// # Panics
/// When there are not so many.
#[must_use]
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are held at the same time, so that they differ.
    let mut held = Vec::new();
    for _ in RANGE {
        if held.len() == COUNT {
            break;
        }
        let port = RANGE.start + NEXT.fetch_add(1, Ordering::Relaxed) % RANGE.len() as u16;
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    assert_eq!(held.len(), COUNT, "there are not enough free ports");
    std::array::from_fn(|place: usize| held[place].local_addr().expect("bound").port())
}
